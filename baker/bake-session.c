/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest session: the working disk, the appliance on it, and the ways back to a clean state (the drawing is in bake-run.h).
 */
#include "baker/bake-run.h"

#include "baker/appliance.h"
#include "baker/bake-walk.h"
#include "baker/guest-open.h"
#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

/* Packages that the host can resolve need no network in the guest; whether it can is known of the state at hand. */
static bool resolves_itself(BakeChain *chain, size_t index, const BakeStep *step, bool *ret, GError **error)
{
    ResolveRequest request;
    bool possible = false;

    *ret = step->network;
    if (!step->network || !step->block || strcmp(step->block->type, "packages") != 0)
        return true;
    if (!bake_resolve_request(chain, index, &request, error))
        return false;
    if (request.map && !resolve_is_possible(&request, &possible, error))
        return false;
    *ret = !possible;
    return true;
}

/* Does any step from @index on need the network in the guest? */
static bool session_network(BakeChain *chain, size_t index, bool *ret, GError **error)
{
    *ret = false;
    for (size_t i = index; i < chain->steps->len && !*ret; i++)
        if (!resolves_itself(chain, index, chain->steps->pdata[i], ret, error))
            return false;
    *ret |= chain->cleanup && chain->cleanup->network;
    return true;
}

/* kiln's own appliance where the disk is plain; what keeps it from being made costs some seconds a bake, but no bake. */
static bool choose_appliance(StoreMap *disk, Appliance *ret, GError **error)
{
    g_autoptr(GError) problem = NULL;
    bool suits;

    if (g_getenv("LIBGUESTFS_PATH"))
        return true;
    if (!appliance_suits(disk, &suits, error))
        return false;
    if (suits && !appliance_get(false, ret, &problem)) {
        if (interrupt_requested())
            return interrupt_check(error);
        log_warning("%s; libguestfs's own appliance is used, which starts slower", problem->message);
    }
    log_verbose("    appliance: %s", ret->path ? ret->path : suits ? "libguestfs's own"
                                                                   : "libguestfs's own, as the disk holds more than plain partitions");
    return true;
}

/* *ret_mounts: what @spec points to; NULL where nothing is known. */
static bool look_at_disk(BakeSession *session, size_t index, GuestOpenSpec *spec, GPtrArray **ret_mounts, Appliance *ret_appliance, GError **error)
{
    BakeChain *chain = session->chain;
    g_autoptr(StoreMap) disk = NULL;
    uint64_t size;

    if (!store_map_open(chain->store, bake_map_before(chain, index), &disk, error) ||
        !bake_find_root(chain, disk, &spec->root_offset, &size, &spec->root_known, error) ||
        !bake_walk_wanted(chain, disk, &session->walks, ret_mounts, error) || !choose_appliance(disk, ret_appliance, error))
        return false;
    session->walks = session->walks && chain->root_known; /* else it may yet turn out to be an ext4 whose journal waits */
    spec->mounts = *ret_mounts;
    return true;
}

static bool disk_is_good(void *arg)
{
    return working_disk_check(arg, NULL);
}

static bool scan_for_secrets(const void *data, size_t size, void *arg, GError **error)
{
    const char *found = secrets_find(((BakeSession *)arg)->chain->secrets, data, size);

    return !found || fail(error, "%s was written to the disk; nothing of this step is kept (steps find secrets in " SECRETS_FOLDER
                                 ", and what they write must not hold them)", found);
}

/* Where the trimmed appliance fails the stock one may know more, and if it does not, its words are the better known ones. */
static bool open_guest(BakeSession *session, GuestOpenSpec *spec, GError **error)
{
    g_autoptr(GError) problem = NULL;

    if (guest_libguestfs_open(spec, &session->guest, &problem))
        return true;
    if (!spec->appliance || interrupt_requested() || !disk_is_good(session->disk)) {
        g_propagate_error(error, g_steal_pointer(&problem));
        return false;
    }
    log_verbose("%s; once more in libguestfs's own appliance", problem->message);
    spec->appliance = NULL;
    return working_disk_drop(session->disk, error) && guest_libguestfs_open(spec, &session->guest, error);
}

static bool open_session(BakeSession *session, size_t index, GError **error)
{
    BakeChain *chain = session->chain;
    GuestOpenSpec spec = {.inspect = chain->state.layout == LAYOUT_INPLACE};
    g_auto(Appliance) appliance = {0};
    g_autoptr(GPtrArray) mounts = NULL;
    gint64 start = g_get_monotonic_time();
    g_autofree char *took = NULL;

    if (!session_network(chain, index, &session->network, error) ||
        !store_make_tmpdir(chain->store, &session->tmpdir, error))
        return false;
    spec.network = session->network;
    if (!working_disk_open(chain->store, bake_map_before(chain, index), chain->state.size, &session->disk, error))
        return fail_prefix(error, "working disk");
    if (secrets_any(chain->secrets))
        working_disk_set_scan(session->disk, scan_for_secrets, session);
    if (!look_at_disk(session, index, &spec, &mounts, &appliance, error))
        return false;
    spec.appliance = appliance.path;
    spec.nbd_socket = working_disk_socket(session->disk);
    spec.disk_is_good = disk_is_good;
    spec.disk_arg = session->disk;
    spec.tmpdir = session->tmpdir;
    session->at = *bake_map_before(chain, index);
    session->touched = session->sealed = false;
    log_info("==> %s: starting the appliance", chain->build->name);
    if (!open_guest(session, &spec, error))
        return false;
    took = units_format_duration((double)(g_get_monotonic_time() - start) / 1e6);
    log_info("    appliance ready in %s", took);
    return !session->walks || index == chain->steps->len ||
           (bake_walk_outline(session, error) && bake_walk_captured(session, &session->at, &session->at, error));
}

void bake_session_close(BakeSession *session)
{
    if (session->guest)
        session->guest->ops->kill(session->guest);
    session->guest = NULL;
    g_clear_pointer(&session->disk, working_disk_close);
    g_clear_pointer(&session->outline, g_hash_table_unref);
    g_clear_pointer(&session->outline_now, g_hash_table_unref);
    session->has_tree = false;
    if (session->tmpdir)
        (void)file_remove_tree(AT_FDCWD, session->tmpdir, NULL); /* recovery would remove it too */
    g_clear_pointer(&session->tmpdir, g_free);
}

/* On the step's tmpfs: they are gone with it. */
static bool put_secrets(BakeSession *session, Guest *guest, GError **error)
{
    const Secrets *secrets = session->chain->secrets;
    const GuestFile folder = {.mode = 0700}, meta = {.mode = 0400};

    if (!session->step || !session->step->block || secrets_count(secrets) == 0)
        return true;
    if (!guest->ops->mkdir(guest, SECRETS_FOLDER, &folder, error))
        return false;
    for (size_t i = 0; i < secrets_count(secrets); i++) {
        g_autofree char *path = g_build_filename(SECRETS_FOLDER, secrets_name(secrets, i), NULL);
        auto_fd int fd = memfd_create("secret", MFD_CLOEXEC);
        gsize size;
        const void *data = g_bytes_get_data(secrets_value(secrets, i), &size);

        if (fd < 0)
            return fail_errno(error, "make a file in memory");
        if (!file_pwrite_full(fd, data, size, 0, "a secret", error) || !guest->ops->put(guest, fd, path, &meta, error))
            return fail_prefix(error, "secret '%s'", secrets_name(secrets, i));
    }
    return true;
}

bool bake_session_in_step(BakeSession *session, const GuestStep *begin, BakeInStepFn *fn, void *arg, GError **error)
{
    Guest *guest = session->guest;
    g_autoptr(GError) ending = NULL;
    bool ok;

    session->touched = true;
    if (!guest->ops->begin(guest, begin, error))
        return false;
    ok = put_secrets(session, guest, error) && fn(session, arg, error);
    if (!guest->ops->end(guest, &ending) && ok) {
        g_propagate_error(error, g_steal_pointer(&ending));
        return false;
    }
    return ok;
}

static bool drop_writes(void *arg, GError **error)
{
    return working_disk_drop(arg, error);
}

/* A guest that turns out to need a network after all gets a new appliance; every good state is kept already. */
static bool end_session(BakeSession *session, GError **error)
{
    bool ok = session->guest->ops->shutdown(session->guest, error);

    session->guest = NULL;
    bake_session_close(session);
    return ok;
}

/* False when this guest cannot be brought back: it crashed, or hangs. */
static bool roll_back(BakeSession *session)
{
    g_autoptr(GError) problem = NULL;

    if (session->sealed)
        return false;
    session->touched = !session->guest->ops->rollback(session->guest, drop_writes, session->disk, &problem);
    if (session->touched)
        log_verbose("the guest cannot go on (%s); a new one takes its place", problem->message);
    return !session->touched;
}

bool bake_session_clean(BakeSession *session, size_t index, GError **error)
{
    BakeChain *chain = session->chain;
    const BakeStep *step = index < chain->steps->len ? chain->steps->pdata[index] : NULL;
    bool network = step && step->network && !session->network;

    if (!interrupt_check(error))
        return false;
    if (session->guest && network && !session->touched && !end_session(session, error))
        return false;
    if (session->guest && !network && digest_equal(&session->at, bake_map_before(chain, index)) &&
        (!session->touched || roll_back(session)))
        return true;
    bake_session_close(session);
    return interrupt_check(error) && open_session(session, index, error);
}
