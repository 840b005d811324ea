/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioners of Packer that a guest which is not booted cannot have, each with its reason: a template that names one is not
 * mistyped.
 */
#include "provisioner/provisioner.h"

#include <string.h>

#define WINDOWS "it works on Windows, which would have to boot, and no guest of a bake does"

static const struct {
    const char *type, *reason;
} refused[] = {
    {"puppet-server", "it takes its catalog from a Puppet server, and a bake depends on nothing that answers "
                      "differently tomorrow; "
                      "puppet-masterless applies manifests from the template's folder"},
    {"chef-client", "it registers with a Chef server; chef-solo runs cookbooks from the template's folder"},
    {"salt-masterless",
     "kiln has no Salt; a shell step can run the guest's salt-call --local on an uploaded tree"},
    {"powershell", WINDOWS},
    {"windows-shell", WINDOWS},
    {"windows-restart", WINDOWS},
    {"windows-update", WINDOWS},
    {"hcp-sbom", "every image that kiln bakes has its list of packages already, see kiln sbom"},
    {"inspec", "it reaches a running machine over SSH; test steps check an image"},
    {"goss", "it needs the network for its program; test steps check an image"},
    {"converge", "the tool is no longer made"},
};

const char *provisioner_refusal(const char *type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++)
        if (strcmp(refused[i].type, type) == 0)
            return refused[i].reason;
    return NULL;
}
