/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: XML from a libvirt host that is not ours alone, read as a domain, as a volume and as capabilities.
 */
#include "deploy/domain-xml.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *xml = g_strndup((const char *)data, size), *drift = NULL;
    g_autoptr(DomainView) view = NULL;
    g_auto(DomainMark) mark = {.address = NULL};
    DomainVolumeStamp stamp;

    (void)domain_volume_stamp_parse(xml, &stamp);
    (void)domain_capabilities_offer(xml, "x86_64", "kvm");
    if (domain_view_parse(xml, &view, NULL) && view->metadata && domain_mark_parse(view->metadata, &mark))
        drift = domain_drift(view, &mark);
    return 0;
}
