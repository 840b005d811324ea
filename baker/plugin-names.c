/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugins that templates of other people use most, by the word that their types begin with.
 */
#include "baker/plugin-names.h"

#include <glib.h>
#include <string.h>

static const struct {
    const char *word, *plugin;
} plugins[] = {
    { "alicloud", "github.com/hashicorp/alicloud" },
    { "amazon", "github.com/hashicorp/amazon" },
    { "ansible", "github.com/hashicorp/ansible" },
    { "azure", "github.com/hashicorp/azure" },
    { "chef", "github.com/hashicorp/chef" },
    { "cloudstack", "github.com/hashicorp/cloudstack" },
    { "digitalocean", "github.com/hashicorp/digitalocean" },
    { "docker", "github.com/hashicorp/docker" },
    { "git", "github.com/ethanmdavidson/git" },
    { "googlecompute", "github.com/hashicorp/googlecompute" },
    { "goss", "github.com/YaleUniversity/goss" },
    { "hcloud", "github.com/hetznercloud/hcloud" },
    { "hyperone", "github.com/hashicorp/hyperone" },
    { "hyperv", "github.com/hashicorp/hyperv" },
    { "inspec", "github.com/hashicorp/inspec" },
    { "ionoscloud", "github.com/hashicorp/profitbricks" },
    { "jdcloud", "github.com/hashicorp/jdcloud" },
    { "linode", "github.com/hashicorp/linode" },
    { "lxc", "github.com/hashicorp/lxc" },
    { "lxd", "github.com/hashicorp/lxd" },
    { "ncloud", "github.com/hashicorp/ncloud" },
    { "openstack", "github.com/hashicorp/openstack" },
    { "oracle", "github.com/hashicorp/oracle" },
    { "outscale", "github.com/hashicorp/outscale" },
    { "parallels", "github.com/hashicorp/parallels" },
    { "proxmox", "github.com/hashicorp/proxmox" },
    { "puppet", "github.com/hashicorp/puppet" },
    { "qemu", "github.com/hashicorp/qemu" },
    { "salt", "github.com/hashicorp/salt" },
    { "scaleway", "github.com/hashicorp/scaleway" },
    { "sshkey", "github.com/ivoronin/sshkey" },
    { "tart", "github.com/cirruslabs/tart" },
    { "tencentcloud", "github.com/hashicorp/tencentcloud" },
    { "triton", "github.com/hashicorp/triton" },
    { "ucloud", "github.com/hashicorp/ucloud" },
    { "utm", "github.com/naveenrajm7/utm" },
    { "vagrant", "github.com/hashicorp/vagrant" },
    { "veertu-anka", "github.com/veertuinc/veertu-anka" },
    { "virtualbox", "github.com/hashicorp/virtualbox" },
    { "vmware", "github.com/hashicorp/vmware" },
    { "vsphere", "github.com/hashicorp/vsphere" },
    { "vultr", "github.com/vultr/vultr" },
    { "windows-update", "github.com/rgl/windows-update" },
    { "xenserver", "github.com/ddelnano/xenserver" },
    { "yandex", "github.com/hashicorp/yandex" },
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
