/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugins that templates of other people use most, by the word that their types begin with, and what to do without them.
 */
#include "baker/plugin-names.h"

#include <glib.h>
#include <string.h>

static const struct {
    const char *word, *plugin;
    const char *here;    /* what runs its blocks; NULL: nothing does, and they are refused */
    const char *instead; /* then: what to do without it; NULL: nobody knows */
} plugins[] = {
    { "alicloud", "github.com/hashicorp/alicloud", NULL, NULL },
    { "amazon", "github.com/hashicorp/amazon", NULL, "bake a disk and export it as raw for an import to EC2" },
    { "ansible", "github.com/hashicorp/ansible", "kiln's own ansible and ansible-local; ansible takes the ansible-playbook of this machine", NULL },
    { "azure", "github.com/hashicorp/azure", NULL, "bake a disk and export it as raw" },
    { "chef", "github.com/hashicorp/chef", "kiln's own chef-solo, with the guest's Chef; chef-client is refused", NULL },
    { "cloudstack", "github.com/hashicorp/cloudstack", NULL, NULL },
    { "digitalocean", "github.com/hashicorp/digitalocean", NULL, NULL },
    { "docker", "github.com/hashicorp/docker", "kiln's own docker source; no daemon is needed", NULL },
    { "git", "github.com/ethanmdavidson/git", NULL, "pass the commit as a variable" },
    { "googlecompute", "github.com/hashicorp/googlecompute", NULL, "bake a disk and export it with --format=gce" },
    { "goss", "github.com/YaleUniversity/goss", NULL, NULL },
    { "hcloud", "github.com/hetznercloud/hcloud", NULL, NULL },
    { "hyperone", "github.com/hashicorp/hyperone", NULL, NULL },
    { "hyperv", "github.com/hashicorp/hyperv", NULL, NULL },
    { "inspec", "github.com/hashicorp/inspec", NULL, NULL },
    { "ionoscloud", "github.com/hashicorp/profitbricks", NULL, NULL },
    { "jdcloud", "github.com/hashicorp/jdcloud", NULL, NULL },
    { "linode", "github.com/hashicorp/linode", NULL, NULL },
    { "lxc", "github.com/hashicorp/lxc", NULL, NULL },
    { "lxd", "github.com/hashicorp/lxd", NULL, NULL },
    { "ncloud", "github.com/hashicorp/ncloud", NULL, NULL },
    { "openstack", "github.com/hashicorp/openstack", NULL, NULL },
    { "oracle", "github.com/hashicorp/oracle", NULL, NULL },
    { "outscale", "github.com/hashicorp/outscale", NULL, NULL },
    { "parallels", "github.com/hashicorp/parallels", NULL, NULL },
    { "proxmox", "github.com/hashicorp/proxmox", NULL, NULL },
    { "puppet", "github.com/hashicorp/puppet", "kiln's own puppet-masterless, with the guest's puppet; puppet-server is refused", NULL },
    { "qemu", "github.com/hashicorp/qemu", "kiln's own qemu source, for disk_image = true; an installer's ISO would have to boot", NULL },
    { "salt", "github.com/hashicorp/salt", NULL, "install salt by a packages step and run salt-call --local in a shell step" },
    { "scaleway", "github.com/hashicorp/scaleway", NULL, NULL },
    { "sshkey", "github.com/ivoronin/sshkey", NULL, NULL },
    { "tart", "github.com/cirruslabs/tart", NULL, NULL },
    { "tencentcloud", "github.com/hashicorp/tencentcloud", NULL, NULL },
    { "triton", "github.com/hashicorp/triton", NULL, NULL },
    { "ucloud", "github.com/hashicorp/ucloud", NULL, NULL },
    { "utm", "github.com/naveenrajm7/utm", NULL, NULL },
    { "vagrant", "github.com/hashicorp/vagrant", NULL, "bake a disk and wrap it outside of kiln" },
    { "veertu-anka", "github.com/veertuinc/veertu-anka", NULL, NULL },
    { "virtualbox", "github.com/hashicorp/virtualbox", NULL, "bake a disk and export it for the host" },
    { "vmware", "github.com/hashicorp/vmware", NULL, "bake a disk and export it for the host" },
    { "vsphere", "github.com/hashicorp/vsphere", NULL, "bake a disk and export it for the host" },
    { "vultr", "github.com/vultr/vultr", NULL, NULL },
    { "windows-update", "github.com/rgl/windows-update", NULL, NULL },
    { "xenserver", "github.com/ddelnano/xenserver", NULL, NULL },
    { "yandex", "github.com/hashicorp/yandex", NULL, NULL },
};

const char *plugin_known_for(const char *type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(plugins); i++) {
        size_t length = strlen(plugins[i].word);

        if (g_str_has_prefix(type, plugins[i].word) && (!type[length] || type[length] == '-'))
            return plugins[i].plugin;
    }
    return NULL;
}

const char *plugin_stand_in(const char *source, bool *ret_usable)
{
    for (size_t i = 0; i < G_N_ELEMENTS(plugins); i++)
        if ((plugins[i].here || plugins[i].instead) && g_str_has_suffix(source, strchr(plugins[i].plugin, '/') + 1)) {
            *ret_usable = plugins[i].here != NULL;
            return plugins[i].here ? plugins[i].here : plugins[i].instead;
        }
    *ret_usable = false;
    return "nothing stands in for it; its blocks are refused by validate";
}
