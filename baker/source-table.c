/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sources there are. A new one is a file beside this and a line here; and what takes a source's place.
 */
#include "baker/source-common.h"

#include <string.h>

static const SourceOps *const sources[] = {
    &source_bootstrap_ops, &source_disk_ops, &source_docker_ops, &source_file_ops, &source_null_ops, &source_oci_ops, &source_qemu_ops,
};

const SourceOps *source_find(const char *type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sources); i++)
        if (strcmp(sources[i]->type, type) == 0)
            return sources[i];
    return NULL;
}

const char *const *source_types(void)
{
    static const char *types[G_N_ELEMENTS(sources) + 1];

    for (size_t i = 0; i < G_N_ELEMENTS(sources); i++)
        types[i] = sources[i]->type;
    return types;
}

/* Sources of Packer's plugins, by how their types begin. */
static const struct {
    const char *prefix, *plugin;
} plugins[] = {
    {"amazon-", "amazon"},     {"azure-", "azure"},           {"googlecompute", "googlecompute"}, {"vsphere-", "vsphere"},       {"vmware-", "vmware"},
    {"virtualbox-", "virtualbox"}, {"parallels-", "parallels"}, {"hyperv-", "hyperv"},           {"digitalocean", "digitalocean"}, {"openstack", "openstack"},
    {"proxmox", "proxmox"},    {"lxc", "lxc"},                {"lxd", "lxd"},                     {"vagrant", "vagrant"},        {"hcloud", "hcloud"},
    {"linode", "linode"},      {"vultr", "vultr"},            {"scaleway", "scaleway"},           {"oracle-", "oracle"},         {"ibmcloud-", "ibmcloud"},
    {"alicloud-", "alicloud"}, {"tencentcloud-", "tencentcloud"}, {"cloudstack", "cloudstack"},   {"ucloud-", "ucloud"},         {"yandex", "yandex"},
    {"hyperone", "hyperone"},  {"ncloud", "ncloud"},          {"outscale-", "outscale"},          {"tart-", "tart"},             {"utm-", "utm"},
    {"nutanix", "nutanix"},    {"xenserver-", "xenserver"},   {"libvirt", "libvirt"},             {"exoscale", "exoscale"},      {"upcloud", "upcloud"},
    {"arm", "arm"},            {"arm-image", "arm-image"},    {"triton", "triton"},               {"profitbricks", "profitbricks"}, {"oneandone", "oneandone"},
    {"cross", "cross"},        {"podman", "podman"},          {"anka-", "veertu-anka"},           {"volcengine-", "volcengine"}, {"huaweicloud-", "huaweicloud"},
};

char *source_refusal(const char *type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(plugins); i++) {
        bool whole = !g_str_has_suffix(plugins[i].prefix, "-");
        size_t length = strlen(plugins[i].prefix);

        if (strncmp(type, plugins[i].prefix, length) == 0 && (!whole || type[length] == '\0' || type[length] == '-'))
            return g_strdup_printf("it is of Packer's plugin '%s', and kiln runs no plugins; its steps are baked on another base with -rebase '%s.NAME=image:REF' or =FILE",
                                   plugins[i].plugin, type);
    }
    return NULL;
}

void source_base_clear(SourceBase *base)
{
    g_clear_pointer(&base->args, json_decref);
}

/* "image:REF", "oci:DIR[:TAG]", "oci-archive:FILE", or a disk image. */
void source_base(const char *type, const json_t *args, const char *rebase, SourceBase *ret)
{
    bool container;

    if (!rebase) {
        *ret = (SourceBase){.ops = source_find(type), .args = json_incref((json_t *)args)};
        return;
    }
    container = g_str_has_prefix(rebase, "oci:") || g_str_has_prefix(rebase, "oci-archive:") || strcmp(rebase, "scratch") == 0;
    *ret = (SourceBase){.ops = container ? &source_oci_ops : &source_disk_ops, .args = json_pack("{s:s}", "from", rebase)};
}
