/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to libzstd. Compressed bytes never take part in an identity but a
 * segment's, so another libzstd may choose other bytes without harm; frames say which one made them (compress_engine).
 */
#include "store/compress.h"

#include "base/error.h"
#include "base/file.h"

#include <zstd.h>

struct Compressor {
    ZSTD_CCtx *ctx;
    int level;
};

Compressor *compressor_new(int level)
{
    Compressor *compressor = g_new0(Compressor, 1);

    compressor->ctx = ZSTD_createCCtx();
    g_assert(compressor->ctx);
    compressor->level = level;
    return compressor;
}

void compressor_free(Compressor *compressor)
{
    if (!compressor)
        return;
    (void)ZSTD_freeCCtx(compressor->ctx);
    g_free(compressor);
}

static void free_compressor(gpointer compressor)
{
    compressor_free(compressor);
}

Compressor *compressor_of_thread(void)
{
    static GPrivate key = G_PRIVATE_INIT(free_compressor);
    Compressor *compressor = g_private_get(&key);

    if (!compressor) {
        compressor = compressor_new(COMPRESS_LEVEL);
        g_private_set(&key, compressor);
    }
    return compressor;
}

/* libzstd's output is the same for one version, level and input, on every processor. */
uint16_t compress_engine(void)
{
    return (uint16_t)(ZSTD_versionNumber() % UINT16_MAX + 1);
}

size_t compress_bound(size_t size)
{
    return ZSTD_compressBound(size);
}

size_t compressor_run(Compressor *compressor, void *to, size_t room, const void *from, size_t size)
{
    size_t n = ZSTD_compressCCtx(compressor->ctx, to, room, from, size, compressor->level);

    return ZSTD_isError(n) ? 0 : n;
}

static void free_dctx(gpointer ctx)
{
    (void)ZSTD_freeDCtx(ctx);
}

/* A context per thread: making one costs more than a frame. */
static ZSTD_DCtx *thread_dctx(void)
{
    static GPrivate key = G_PRIVATE_INIT(free_dctx);
    ZSTD_DCtx *ctx = g_private_get(&key);

    if (!ctx) {
        ctx = ZSTD_createDCtx();
        g_assert(ctx);
        g_private_set(&key, ctx);
    }
    return ctx;
}

bool decompress_exact(void *to, size_t size, const void *from, size_t from_size)
{
    return ZSTD_decompressDCtx(thread_dctx(), to, size, from, from_size) == size;
}

GBytes *compress_bytes(const void *data, size_t size)
{
    size_t room = ZSTD_compressBound(size);
    void *to = g_malloc(room);
    size_t n = ZSTD_compress(to, room, data, size, COMPRESS_LEVEL);

    g_assert(!ZSTD_isError(n));
    return g_bytes_new_take(g_realloc(to, n), n);
}

bool decompress_bytes(const void *data, size_t size, size_t max, GBytes **ret, GError **error)
{
    unsigned long long plain = ZSTD_getFrameContentSize(data, size);
    g_autofree uint8_t *to = NULL;

    if (plain == ZSTD_CONTENTSIZE_ERROR || plain == ZSTD_CONTENTSIZE_UNKNOWN)
        return fail(error, "the compressed bytes are damaged");
    if (plain > max)
        return fail(error, "the content is larger than the %zu bytes allowed here", max);
    to = g_malloc(plain + 1);
    if (!decompress_exact(to, plain, data, size))
        return fail(error, "the compressed bytes are damaged");
    to[plain] = '\0';
    *ret = g_bytes_new_take(g_steal_pointer(&to), plain);
    return true;
}

bool compress_plain_size(const void *data, size_t size, uint64_t *ret)
{
    unsigned long long plain = ZSTD_getFrameContentSize(data, size);

    *ret = plain;
    return plain != ZSTD_CONTENTSIZE_ERROR && plain != ZSTD_CONTENTSIZE_UNKNOWN;
}

typedef struct Stream {
    ZSTD_DCtx *ctx;
    uint8_t *in, *out;
    size_t in_room, out_room;
    size_t state; /* of the last call: 0 when a frame has ended */
} Stream;

static bool stream_feed(Stream *s, size_t size, DecompressFn *fn, void *arg, const char *what, GError **error)
{
    ZSTD_inBuffer in = { s->in, size, 0 };

    while (in.pos < in.size) {
        ZSTD_outBuffer out = { s->out, s->out_room, 0 };

        s->state = ZSTD_decompressStream(s->ctx, &out, &in);
        if (ZSTD_isError(s->state))
            return fail(error, "%s is damaged: %s", what, ZSTD_getErrorName(s->state));
        if (out.pos > 0 && !fn(s->out, out.pos, arg, error))
            return false;
        /* A full output buffer may hide more output although the input is used up. */
        while (out.pos == out.size && s->state != 0) {
            out.pos = 0;
            s->state = ZSTD_decompressStream(s->ctx, &out, &in);
            if (ZSTD_isError(s->state))
                return fail(error, "%s is damaged: %s", what, ZSTD_getErrorName(s->state));
            if (out.pos > 0 && !fn(s->out, out.pos, arg, error))
                return false;
        }
    }
    return true;
}

static bool stream_run(Stream *s, int fd, DecompressFn *fn, void *arg, const char *what, GError **error)
{
    for (;;) {
        size_t n;

        if (!file_read_upto(fd, s->in, s->in_room, &n, what, error))
            return false;
        if (n == 0)
            return s->state == 0 || fail(error, "%s is cut off", what);
        if (!stream_feed(s, n, fn, arg, what, error))
            return false;
    }
}

bool decompress_fd(int fd, DecompressFn *fn, void *arg, const char *what, GError **error)
{
    Stream s = { .ctx = ZSTD_createDCtx(), .in_room = ZSTD_DStreamInSize(), .out_room = ZSTD_DStreamOutSize() };
    bool ok;

    g_assert(s.ctx);
    s.in = g_malloc(s.in_room);
    s.out = g_malloc(s.out_room);
    ok = stream_run(&s, fd, fn, arg, what, error);
    (void)ZSTD_freeDCtx(s.ctx);
    g_free(s.in);
    g_free(s.out);
    return ok;
}

/* --- a stream of our own --- */

struct ZstdWriter {
    ZSTD_CCtx *ctx;
    DecompressFn *out;
    void *arg;
    size_t room;
    uint8_t *buffer;
};

/* One worker at least: without any, libzstd works another way and makes other bytes. A libzstd without threads refuses, and works without. */
ZstdWriter *zstd_writer_new(uint64_t plain_size, DecompressFn *out, void *arg)
{
    ZstdWriter *z = g_new0(ZstdWriter, 1);

    z->ctx = ZSTD_createCCtx();
    g_assert(z->ctx);
    (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_compressionLevel, COMPRESS_LEVEL);
    (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_checksumFlag, 1);
    (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_nbWorkers, (int)CLAMP(g_get_num_processors(), 1, 16));
    (void)ZSTD_CCtx_setPledgedSrcSize(z->ctx, plain_size);
    z->out = out;
    z->arg = arg;
    z->room = ZSTD_CStreamOutSize();
    z->buffer = g_malloc(z->room);
    return z;
}

static bool zstd_run(ZstdWriter *z, const void *data, size_t size, ZSTD_EndDirective end, GError **error)
{
    ZSTD_inBuffer in = {data, size, 0};
    size_t left;

    do {
        ZSTD_outBuffer out = {z->buffer, z->room, 0};

        left = ZSTD_compressStream2(z->ctx, &out, &in, end);
        if (ZSTD_isError(left))
            return fail(error, "zstd: %s", ZSTD_getErrorName(left));
        if (out.pos > 0 && !z->out(z->buffer, out.pos, z->arg, error))
            return false;
    } while (end == ZSTD_e_end ? left > 0 : in.pos < in.size);
    return true;
}

bool zstd_writer_push(ZstdWriter *z, const void *data, size_t size, GError **error)
{
    return size == 0 || zstd_run(z, data, size, ZSTD_e_continue, error);
}

bool zstd_writer_finish(ZstdWriter *z, GError **error)
{
    return zstd_run(z, NULL, 0, ZSTD_e_end, error);
}

void zstd_writer_free(ZstdWriter *z)
{
    if (!z)
        return;
    (void)ZSTD_freeCCtx(z->ctx);
    g_free(z->buffer);
    g_free(z);
}
