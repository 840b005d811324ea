/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses for the guest's one card, set by ioctls: a minimal guest has neither ip nor a DHCP client.
 *
 * The addresses are those of qemu's user network as baker/guest-libguestfs.c starts it (net=169.254.0.0/16), where the
 * router is always .2.2 and answers DNS at .2.3.
 */
#include "provisioner/runner/runner.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CARD_ADDRESS "169.254.2.15"
#define CARD_NETMASK "255.255.0.0"
#define CARD_ROUTER "169.254.2.2"
#define CARD_INDEX_MAX 64

static void set_address(struct sockaddr *to, const char *text)
{
    struct sockaddr_in in = {.sin_family = AF_INET};

    in.sin_addr.s_addr = inet_addr(text);
    memcpy(to, &in, sizeof in);
}

static int bring_up(int fd, const char *name)
{
    struct ifreq req = {0};

    memcpy(req.ifr_name, name, IFNAMSIZ);
    if (ioctl(fd, SIOCGIFFLAGS, &req) < 0)
        return errno;
    req.ifr_flags |= IFF_UP | IFF_RUNNING;
    return ioctl(fd, SIOCSIFFLAGS, &req) < 0 ? errno : 0;
}

static int set_number(int fd, const char *name, unsigned long what, const char *text)
{
    struct ifreq req = {0};

    memcpy(req.ifr_name, name, IFNAMSIZ);
    set_address(&req.ifr_addr, text);
    return ioctl(fd, what, &req) < 0 ? errno : 0;
}

static int add_default_route(int fd)
{
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};

    set_address(&route.rt_dst, "0.0.0.0");
    set_address(&route.rt_genmask, "0.0.0.0");
    set_address(&route.rt_gateway, CARD_ROUTER);
    return ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST ? errno : 0;
}

/* The first interface that is Ethernet and no loopback. */
static int find_card(int fd, char name[IFNAMSIZ])
{
    for (int index = 1; index <= CARD_INDEX_MAX; index++) {
        struct ifreq req = {.ifr_ifindex = index};

        if (ioctl(fd, SIOCGIFNAME, &req) < 0)
            continue;
        memcpy(name, req.ifr_name, IFNAMSIZ);
        if (ioctl(fd, SIOCGIFHWADDR, &req) == 0 && req.ifr_hwaddr.sa_family == 1 /* ARPHRD_ETHER */)
            return 0;
    }
    return ENODEV;
}

int network_up_loopback(void)
{
    const char name[IFNAMSIZ] = "lo";
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int err = fd < 0 ? errno : bring_up(fd, name);

    if (fd >= 0)
        close(fd);
    return err;
}

int network_up_card(void)
{
    char name[IFNAMSIZ] = "";
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int err = fd < 0 ? errno : find_card(fd, name);

    if (!err)
        err = set_number(fd, name, SIOCSIFADDR, CARD_ADDRESS);
    if (!err)
        err = set_number(fd, name, SIOCSIFNETMASK, CARD_NETMASK);
    if (!err)
        err = bring_up(fd, name);
    if (!err)
        err = add_default_route(fd);
    if (fd >= 0)
        close(fd);
    return err;
}
