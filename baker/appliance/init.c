/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first process of kiln's own appliance: from the kernel's first breath to libguestfs's daemon.
 *
 *     /modules        names of kernel modules beside it, in the order in which they are loaded
 *     /modules.card   likewise, for machines with a network card
 *     /kiln-runner    what will run the steps; it ends up in /run
 *     root=UUID=...   the appliance's root, among the disks that appear
 *     kiln.port=NAME  a port that must be there, beside libguestfs's own, before the daemon starts
 *
 * The stock appliance spends most of its start on what a bake has no use for: device rules, volume managers, arrays, a shell
 * script with a hundred programs, each of which costs a tenth of a second where the processor is emulated. This is one static program that
 * does what is left: mounts, links, modules. guestfsd asks for /dev/disk/by-path to exist and finds its port by name.
 *
 * A failure is told on the console, where libguestfs listens, and ends the machine.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROOT "/root"
#define DAEMON "/usr/sbin/guestfsd"
#define PORTS "/dev/virtio-ports"
#define BY_PATH "/dev/disk/by-path"
#define CHANNEL PORTS "/org.libguestfs.channel.0"
#define WAIT_LIMIT_MS 20000 /* for a disk or a port to appear */
#define WAIT_STEP_MS 10

static void die(const char *format, ...)
{
    va_list args;

    printf("kiln appliance: ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf(": %s\n", strerror(errno));
    sync();
    (void)reboot(RB_AUTOBOOT); /* qemu runs with -no-reboot: it ends */
    _exit(1);
}

static void pause_ms(long ms)
{
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};

    (void)nanosleep(&time, NULL);
}

static void make_folder(const char *path)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        die("make '%s'", path);
}

static void mount_on(const char *type, const char *path, const char *options)
{
    make_folder(path);
    if (mount(type, path, type, MS_NOSUID, options) < 0)
        die("mount '%s'", path);
}

/* The whole small file, ended by a NUL; empty when it cannot be read. */
static void read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, size - 1) : 0;

    if (fd >= 0)
        (void)close(fd);
    text[got > 0 ? got : 0] = '\0';
}

/* What a kernel refuses by these words is told where it is missed: a device that is not there. */
static void load_module(const char *name)
{
    char path[256];
    int fd;

    (void)snprintf(path, sizeof path, "/%s", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die("open module '%s'", name);
    if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
        printf("kiln appliance: module '%s': %s\n", name, strerror(errno));
    (void)close(fd);
}

static void load_modules(const char *list_path)
{
    static char list[16384];

    read_text(list_path, list, sizeof list);
    for (char *name = strtok(list, "\n"); name; name = strtok(NULL, "\n"))
        load_module(name);
}

/* A network card is there only where a step may use it. */
static bool has_card(void)
{
    DIR *dir = opendir("/sys/bus/pci/devices");
    bool found = false;

    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry && !found; entry = readdir(dir)) {
        char path[512], device[32];

        (void)snprintf(path, sizeof path, "/sys/bus/pci/devices/%.200s/class", entry->d_name);
        read_text(path, device, sizeof device);
        found = strncmp(device, "0x0200", 6) == 0;
    }
    if (dir)
        (void)closedir(dir);
    return found;
}

/* --- the root --- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* root=UUID=... as 16 bytes. */
static void wanted_uuid(uint8_t ret[16])
{
    char line[4096];
    const char *at;
    size_t digits = 0;

    memset(ret, 0, 16);
    read_text("/proc/cmdline", line, sizeof line);
    at = strstr(line, "root=UUID=");
    for (at = at ? at + strlen("root=UUID=") : ""; digits < 32 && *at && *at != ' '; at++) {
        int digit = hex_digit(*at);

        if (digit >= 0) {
            ret[digits / 2] = (uint8_t)(ret[digits / 2] << 4 | digit);
            digits++;
        }
    }
    errno = EINVAL;
    if (digits < 32)
        die("no root=UUID= on the kernel's command line");
}

/* The UUID of an ext2 file system lies at byte 104 of its superblock, which lies at byte 1024. */
static bool has_uuid(const char *path, const uint8_t uuid[16])
{
    uint8_t block[1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool found = fd >= 0 && pread(fd, block, sizeof block, 1024) == sizeof block && block[56] == 0x53 && block[57] == 0xEF &&
                 memcmp(block + 104, uuid, 16) == 0;

    if (fd >= 0)
        (void)close(fd);
    return found;
}

static bool find_root(const uint8_t uuid[16], char *ret, size_t size)
{
    DIR *dir = opendir("/sys/block");
    bool found = false;

    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry && !found; entry = readdir(dir)) {
        (void)snprintf(ret, size, "/dev/%.200s", entry->d_name);
        found = strncmp(entry->d_name, "sd", 2) == 0 && has_uuid(ret, uuid);
    }
    if (dir)
        (void)closedir(dir);
    return found;
}

static void mount_root(void)
{
    uint8_t uuid[16];
    char disk[256];
    int waited = 0;

    wanted_uuid(uuid);
    while (!find_root(uuid, disk, sizeof disk)) {
        errno = ENODEV;
        if ((waited += WAIT_STEP_MS) > WAIT_LIMIT_MS)
            die("find the appliance's root");
        pause_ms(WAIT_STEP_MS);
    }
    make_folder(ROOT);
    if (mount(disk, ROOT, "ext4", MS_NOATIME, "") < 0 && mount(disk, ROOT, "ext2", MS_NOATIME, "") < 0)
        die("mount the appliance's root '%s'", disk);
}

static void take_along(const char *from, const char *to)
{
    if (mount(from, to, NULL, MS_MOVE, NULL) < 0)
        die("move '%s'", from);
}

/* Through memory: the two lie on different file systems, and /run is made behind the initrd's back. */
static void *take_runner(size_t *ret_size)
{
    struct stat st;
    int fd = open("/kiln-runner", O_RDONLY | O_CLOEXEC);
    void *bytes;

    if (fd < 0 || fstat(fd, &st) < 0)
        die("open the runner");
    bytes = malloc((size_t)st.st_size);
    if (!bytes || read(fd, bytes, (size_t)st.st_size) != st.st_size)
        die("read the runner");
    (void)close(fd);
    *ret_size = (size_t)st.st_size;
    return bytes;
}

static void put_runner(const void *bytes, size_t size)
{
    int fd = open("/run/kiln-runner", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);

    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
        die("write the runner");
    (void)close(fd);
}

static void enter_root(void)
{
    take_along("/proc", ROOT "/proc");
    take_along("/sys", ROOT "/sys");
    take_along("/dev", ROOT "/dev");
    if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        die("enter the appliance's root");
}

/* --- what udev and tmpfiles would have made --- */

/* Ports appear with their names once the host's side has been heard. */
static void link_ports(void)
{
    DIR *dir = opendir("/sys/class/virtio-ports");

    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        char path[512], name[128], target[300];

        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "/sys/class/virtio-ports/%.200s/name", entry->d_name);
        read_text(path, name, sizeof name);
        name[strcspn(name, "\n")] = '\0';
        if (!*name || strchr(name, '/'))
            continue;
        (void)snprintf(path, sizeof path, PORTS "/%s", name);
        (void)snprintf(target, sizeof target, "../%.200s", entry->d_name);
        (void)symlink(target, path); /* it may be there from the last look */
    }
    if (dir)
        (void)closedir(dir);
}

static void wait_for_port(const char *path)
{
    int waited = 0;

    for (;;) {
        link_ports();
        if (access(path, F_OK) == 0)
            return;
        if ((waited += WAIT_STEP_MS) > WAIT_LIMIT_MS)
            die("find the port '%s'", path);
        pause_ms(WAIT_STEP_MS);
    }
}

static void wait_for_ports(void)
{
    static const char option[] = " kiln.port=";
    char line[4096], path[512];
    const char *name;

    make_folder(PORTS);
    wait_for_port(CHANNEL);
    read_text("/proc/cmdline", line, sizeof line);
    name = strstr(line, option);
    if (!name)
        return;
    name += sizeof option - 1;
    (void)snprintf(path, sizeof path, PORTS "/%.*s", (int)strcspn(name, " \n"), name);
    wait_for_port(path);
}

/* Named by their place on the bus, "scsi-0:0:1:0"; guestfsd sorts them by number. */
static void link_disks(void)
{
    DIR *dir = opendir("/sys/block");

    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        char path[512], device[512], target[300];
        ssize_t size;

        if (strncmp(entry->d_name, "sd", 2) != 0)
            continue;
        (void)snprintf(path, sizeof path, "/sys/block/%.200s/device", entry->d_name);
        size = readlink(path, device, sizeof device - 1);
        if (size < 0)
            die("read where '%s' is", entry->d_name);
        device[size] = '\0';
        (void)snprintf(path, sizeof path, BY_PATH "/scsi-%.200s", strrchr(device, '/') ? strrchr(device, '/') + 1 : device);
        (void)snprintf(target, sizeof target, "../../%.200s", entry->d_name);
        if (symlink(target, path) < 0)
            die("make '%s'", path);
    }
    if (dir)
        (void)closedir(dir);
}

static void loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return; /* a kernel without network has no step that misses it */
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    (void)ioctl(fd, SIOCSIFFLAGS, &request);
    (void)close(fd);
}

static void furnish(void)
{
    static const char *const folders[] = {"/dev/pts", "/dev/shm", "/dev/mapper", "/dev/disk", BY_PATH, "/sysroot"};

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        make_folder(folders[i]);
    mount_on("devpts", "/dev/pts", "");
    mount_on("tmpfs", "/dev/shm", "mode=1777");
    mount_on("tmpfs", "/run", "size=20%,mode=0755");
    make_folder("/run/lock");
    (void)symlink("/proc/self/fd", "/dev/fd");
    (void)symlink("/proc/mounts", "/etc/mtab"); /* it is there already, mostly */
    link_disks();
    loopback_up();
}

/* --- the daemon --- */

static void run_daemon(void)
{
    const char *const argv[] = {DAEMON, "--channel", CHANNEL, NULL};
    static const char *const env[] = {"PATH=/sbin:/usr/sbin:/bin:/usr/bin", "TERM=linux", NULL};
    pid_t daemon = fork(), ended;

    if (daemon < 0)
        die("start the daemon");
    if (daemon == 0) {
        (void)execve(DAEMON, (char *const *)argv, (char *const *)env);
        die("start '%s'", DAEMON);
    }
    do /* the first process is also whom the orphans fall to */
        ended = wait(NULL);
    while (ended != daemon && (ended > 0 || errno == EINTR));
}

int main(void)
{
    size_t runner_size;
    void *runner;

    (void)setvbuf(stdout, NULL, _IONBF, 0);
    mount_on("proc", "/proc", "");
    mount_on("sysfs", "/sys", "");
    mount_on("devtmpfs", "/dev", "mode=0755");
    load_modules("/modules");
    if (has_card())
        load_modules("/modules.card");
    mount_root();
    runner = take_runner(&runner_size);
    enter_root();
    furnish();
    put_runner(runner, runner_size);
    free(runner);
    wait_for_ports();
    run_daemon();
    sync();
    (void)reboot(RB_AUTOBOOT);
    return 1;
}
