/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session with a repository: places to ask, tokens, and what is read.
 *
 * Places are tried in the order of registries.conf until one has the first thing that is asked for; from then on it is the one. Tokens are
 * kept per scope until the registry refuses them.
 */
#include "store/registry-private.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/printable.h"
#include "base/scope.h"
#include "store/registry-auth.h"
#include "store/registry-hosts.h"

#include <string.h>
#include <unistd.h>

#define COPY_PIECE (1u << 20)
#define TOKEN_MAX 65536
#define LIST_MAX (4u << 20)
#define PAGES_MAX 1000
#define WORDS_MAX 200

static const char accept_manifests[] = "Accept: " OCI_MANIFEST_TYPE ", " OCI_INDEX_TYPE ", " DOCKER_MANIFEST_TYPE ", " DOCKER_INDEX_TYPE;

/* One HOST/REPOSITORY, this one or a mirror of it. */
typedef struct Place {
    char *host, *repository, *base; /* base: "https://host", once it is known */
    HttpClient *client;
    RegistryLogin login;
    bool login_known, basic;
    GHashTable *tokens; /* scope -> token */
} Place;

struct Registry {
    char *place;
    bool push, plain_http;
    GPtrArray *places; /* of Place* */
    guint current;
    bool settled; /* one of them has answered */
    GMutex lock;
    uint64_t requests, received, sent;
};

static void place_free(gpointer data)
{
    Place *place = data;

    g_free(place->host);
    g_free(place->repository);
    g_free(place->base);
    http_client_free(place->client);
    registry_login_clear(&place->login);
    g_hash_table_unref(place->tokens);
    g_free(place);
}

static Place *place_new(const char *text)
{
    Place *place = g_new0(Place, 1);
    const char *slash = strchr(text, '/');
    g_autofree char *ca = NULL, *cert = NULL, *key = NULL;

    place->host = g_strndup(text, (gsize)(slash - text));
    place->repository = g_strdup(slash + 1);
    place->tokens = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    registry_certificates(place->host, &ca, &cert, &key);
    place->client = http_client_new(&(HttpTls){.ca_file = ca, .cert_file = cert, .key_file = key});
    return place;
}

bool registry_open(const RegistryRef *ref, const RegistryOptions *options, Registry **ret, GError **error)
{
    g_autoptr(Registry) r = g_new0(Registry, 1);
    g_autoptr(GPtrArray) places = NULL;

    g_mutex_init(&r->lock);
    r->place = registry_ref_place(ref);
    r->push = options->push;
    r->plain_http = options->plain_http;
    r->places = g_ptr_array_new_with_free_func(place_free);
    if (options->push) {
        g_ptr_array_add(r->places, place_new(r->place));
    } else {
        if (!registry_places(ref->host, ref->repository, &places, error))
            return false;
        for (guint i = 0; i < places->len; i++) {
            g_auto(RegistryRef) parsed = {0};

            if (!registry_ref_parse(places->pdata[i], &parsed, error))
                return fail_prefix(error, "registries.conf");
            g_ptr_array_add(r->places, place_new(places->pdata[i]));
        }
    }
    *ret = g_steal_pointer(&r);
    return true;
}

void registry_close(Registry *r)
{
    if (!r)
        return;
    if (r->places)
        g_ptr_array_unref(r->places);
    g_mutex_clear(&r->lock);
    g_free(r->place);
    g_free(r);
}

const char *registry_place(const Registry *r)
{
    return r->place;
}

static Place *place_of(const Registry *r)
{
    return r->places->pdata[r->current];
}

const char *registry_host(const Registry *r)
{
    return place_of(r)->host;
}

void registry_counts(const Registry *r, uint64_t *ret_requests, uint64_t *ret_received, uint64_t *ret_sent)
{
    AUTO_LOCK(&((Registry *)r)->lock);
    *ret_requests = r->requests;
    *ret_received = r->received;
    *ret_sent = r->sent;
}

static void count_request(Registry *r)
{
    AUTO_LOCK(&r->lock);
    r->requests++;
}

static void count_received(Registry *r, uint64_t bytes)
{
    AUTO_LOCK(&r->lock);
    r->received += bytes;
}

void registry_count_sent(Registry *r, uint64_t bytes)
{
    AUTO_LOCK(&r->lock);
    r->sent += bytes;
}

char *registry_path(const Registry *r, const char *format, ...)
{
    g_autofree char *rest = NULL;
    va_list args;

    va_start(args, format);
    rest = g_strdup_vprintf(format, args);
    va_end(args);
    return g_strdup_printf("/v2/%s/%s", place_of(r)->repository, rest);
}

/* --- what goes wrong --- */

/* The registry's own words, out of its error document, made fit for a terminal. */
static char *words_of(const HttpAnswer *answer)
{
    g_autoptr(json_t) document = NULL;
    const json_t *first;
    const char *code, *message;
    g_autofree char *text = NULL;
    gsize size;
    const char *data = answer->body ? g_bytes_get_data(answer->body, &size) : NULL;

    if (!data || !json_parse(data, size, LIST_MAX, "error", &document, NULL))
        return NULL;
    first = json_array_get(json_object_get(document, "errors"), 0);
    code = json_string_value(json_object_get(first, "code"));
    message = json_string_value(json_object_get(first, "message"));
    if (!code && !message)
        return NULL;
    text = g_strdup_printf("%s%s%s", code ? code : "", code && message ? ": " : "", message ? message : "");
    if (strlen(text) > WORDS_MAX)
        text[WORDS_MAX] = '\0';
    return printable_line(text);
}

bool registry_fail(const Registry *r, const HttpAnswer *answer, const char *what, GError **error)
{
    g_autofree char *said = words_of(answer), *words = http_answer_words(answer);
    const char *why = answer->trouble                ? words
                      : answer->status == 401        ? "it asks for a login; give one with docker login or podman login"
                      : answer->status == 403        ? "it does not allow that"
                      : answer->status == 429        ? "it has had too many requests"
                      : answer->status / 100 == 3    ? "it sends us elsewhere, where we do not follow"
                                                     : words;

    return fail_code(error, answer->status == 404 ? KILN_ERROR_NOT_FOUND : KILN_ERROR_FAILED, "%s: %s: %s%s%s%s", r->place, what,
                     answer->status == 404 ? "it is not there" : why, said ? " (" : "", said ? said : "", said ? ")" : "");
}

/* --- where the server is --- */

static char *bare_host(const char *host)
{
    if (*host == '[')
        return g_strndup(host, strcspn(host, "]") + 1);
    return g_strndup(host, strcspn(host, ":"));
}

static bool ping(Registry *r, Place *place, const char *base, HttpAnswer *answer, GError **error)
{
    g_autofree char *url = g_strconcat(base, "/v2/", NULL);
    HttpRequest request = {.method = "GET", .url = url, .timeout = 30};

    count_request(r);
    return http_request(place->client, &request, answer, error);
}

/* Something that knows HTTP, and in this dialect: a TLS server that gets plain words says 400, or closes. */
static bool speaks(const HttpAnswer *answer, bool plain)
{
    return !answer->trouble && !(plain && answer->status == 400);
}

static bool find_base(Registry *r, Place *place, GError **error)
{
    g_autofree char *bare = bare_host(place->host);
    bool plain = r->plain_http || http_host_is_loopback(bare);
    const char *const schemes[] = {plain ? "http" : "https", plain ? "https" : NULL};
    const char *host = strcmp(place->host, "docker.io") == 0 ? "registry-1.docker.io" : place->host;
    HttpPatience patience = {0};

    for (;;) {
        g_auto(HttpAnswer) answer = {0};

        for (int i = 0; i < 2 && schemes[i]; i++) {
            g_autofree char *base = g_strdup_printf("%s://%s", schemes[i], host);

            if (!ping(r, place, base, &answer, error))
                return false;
            if (!speaks(&answer, plain && i == 0))
                continue;
            place->base = g_steal_pointer(&base);
            return true;
        }
        if (answer.hopeless || !answer.trouble)
            return registry_fail(r, &answer, "cannot speak to it", error);
        answer.known = false; /* the other dialect may have been answered, this one was not */
        if (!http_patience_wait(&patience, false, &answer, r->place, error))
            return false;
    }
}

/* One thread finds it, the others wait: it takes requests. */
static bool base_of(Registry *r, Place *place, char **ret, GError **error)
{
    static GMutex finding;
    AUTO_LOCK(&finding);

    if (!place->base && !find_base(r, place, error))
        return false;
    *ret = g_strdup(place->base);
    return true;
}

/* --- who we are --- */

static bool find_login(Registry *r, Place *place, GError **error)
{
    AUTO_LOCK(&r->lock);
    if (!place->login_known && !registry_login_find(place->host, place->repository, &place->login, error))
        return fail_prefix(error, "%s", r->place);
    place->login_known = true;
    return true;
}

static char *scope_of(const Registry *r, const Place *place, const char *also)
{
    return g_strdup_printf("repository:%s:%s%s%s%s", place->repository, r->push ? "pull,push" : "pull", also ? " repository:" : "", also ? also : "",
                           also ? ":pull" : "");
}

static char *authorization(Registry *r, Place *place, const char *scope)
{
    const char *token;

    AUTO_LOCK(&r->lock);
    if (place->basic) {
        g_autofree char *basic = registry_basic(&place->login);

        return g_strconcat("Authorization: ", basic, NULL);
    }
    token = g_hash_table_lookup(place->tokens, scope);
    return token ? g_strconcat("Authorization: Bearer ", token, NULL) : NULL;
}

static void add_query(GString *to, const char *name, const char *value)
{
    g_autofree char *escaped = g_uri_escape_string(value, NULL, FALSE);

    g_string_append_printf(to, "%s%s=%s", to->len ? "&" : "", name, escaped);
}

/* Scopes as several words, as the token server wants them. */
static void add_scopes(GString *to, const char *scope)
{
    g_auto(GStrv) words = g_strsplit(scope, " ", -1);

    for (char **word = words; *word; word++)
        add_query(to, "scope", *word);
}

static bool take_token(const Registry *r, const HttpAnswer *answer, char **ret, GError **error)
{
    g_autoptr(json_t) document = NULL;
    const char *token;
    gsize size;
    const char *data = g_bytes_get_data(answer->body, &size);

    if (!json_parse(data, size, TOKEN_MAX, "the token server's answer", &document, error))
        return fail_prefix(error, "%s", r->place);
    token = json_string_value(json_object_get(document, "token"));
    if (!token)
        token = json_string_value(json_object_get(document, "access_token"));
    if (!token || !*token || strpbrk(token, "\r\n"))
        return fail(error, "%s: its token server gave no token", r->place);
    *ret = g_strdup(token);
    return true;
}

/* For the others, once it has been good for who asked: some tokens are good for little more. */
static void share_token(Registry *r, Place *place, const char *scope, const char *token)
{
    AUTO_LOCK(&r->lock);
    g_hash_table_insert(place->tokens, g_strdup(scope), g_strdup(token));
}

static bool ask_for_token(Registry *r, Place *place, const RegistryChallenge *challenge, const char *scope, char **ret, GError **error)
{
    g_autoptr(GString) query = g_string_new(NULL);
    g_autofree char *basic = place->login.user ? registry_basic(&place->login) : NULL;
    g_autofree char *header = basic ? g_strconcat("Authorization: ", basic, NULL) : NULL, *url = NULL;
    const char *post_headers[] = {"Content-Type: application/x-www-form-urlencoded", NULL};
    const char *get_headers[] = {header, NULL};
    HttpRequest request = {.method = "GET", .headers = get_headers, .max_body = TOKEN_MAX, .timeout = 60};
    HttpPatience patience = {0};
    g_auto(HttpAnswer) answer = {0};

    if (!challenge->realm || (!g_str_has_prefix(challenge->realm, "https://") && !(g_str_has_prefix(challenge->realm, "http://") && g_str_has_prefix(place->base, "http://"))))
        return fail(error, "%s: the place it wants us to log in at is not an https URL", r->place);
    if (challenge->service)
        add_query(query, "service", challenge->service);
    add_scopes(query, scope);
    if (place->login.identity) {
        add_query(query, "grant_type", "refresh_token");
        add_query(query, "client_id", "kiln");
        add_query(query, "refresh_token", place->login.identity);
        request.method = "POST";
        request.headers = post_headers;
        request.has_body = true;
        request.body = query->str;
        request.body_size = query->len;
        request.url = challenge->realm;
    } else {
        url = g_strdup_printf("%s%s%s", challenge->realm, strchr(challenge->realm, '?') ? "&" : "?", query->str);
        request.url = url;
    }
    for (;;) {
        count_request(r);
        if (!http_request(place->client, &request, &answer, error))
            return false;
        if (!http_answer_is_transient(&answer))
            break;
        if (!http_patience_wait(&patience, false, &answer, "the registry's token server", error))
            return fail_prefix(error, "%s", r->place);
    }
    if (answer.trouble || answer.status != 200)
        return registry_fail(r, &answer, place->login.user || place->login.identity ? "logging in" : "logging in without a name", error);
    return take_token(r, &answer, ret, error);
}

/*
 * @said: as whom the request came, or NULL. *ret_again: there is more to say than that; another thread may have found it out meanwhile. *ret_token: a
 * new one to say it by, or NULL.
 */
static bool introduce(Registry *r, Place *place, const HttpAnswer *answer, const char *scope, const char *said, bool *ret_again, char **ret_token, GError **error)
{
    g_auto(RegistryChallenge) challenge = {0};
    const char *header = http_answer_header(answer, "www-authenticate");

    *ret_again = false;
    if (!header || !find_login(r, place, error))
        return !header;
    registry_challenge_parse(header, &challenge);
    if (challenge.bearer) {
        *ret_again = true;
        return ask_for_token(r, place, &challenge, challenge.scope && !g_str_has_prefix(challenge.scope, "repository:") ? challenge.scope : scope, ret_token,
                             error);
    }
    AUTO_LOCK(&r->lock);
    *ret_again = challenge.basic && place->login.user && !said;
    place->basic = place->basic || *ret_again;
    return true;
}

/* --- requests --- */

static bool is_ours(const char *url, const char *base)
{
    size_t size = strlen(base);

    return g_ascii_strncasecmp(url, base, size) == 0 && (url[size] == '/' || url[size] == '?' || url[size] == '\0');
}

bool registry_request(Registry *r, const HttpRequest *request, const char *also, HttpAnswer *ret, GError **error)
{
    Place *place = place_of(r);
    g_autofree char *base = NULL, *url = NULL, *scope = scope_of(r, place, also), *token = NULL;
    bool ours;

    if (!base_of(r, place, &base, error))
        return false;
    url = *request->url == '/' ? g_strconcat(base, request->url, NULL) : g_strdup(request->url);
    ours = is_ours(url, base);
    for (int tries = 0;; tries++) {
        g_autofree char *header = token ? g_strconcat("Authorization: Bearer ", token, NULL) : ours ? authorization(r, place, scope) : NULL;
        g_autoptr(GPtrArray) headers = g_ptr_array_new();
        HttpRequest with = *request;
        bool again;

        for (const char *const *h = request->headers; h && *h; h++)
            g_ptr_array_add(headers, (char *)*h);
        if (header)
            g_ptr_array_add(headers, header);
        g_ptr_array_add(headers, NULL);
        with.url = url;
        with.headers = (const char *const *)headers->pdata;
        count_request(r);
        if (!http_request(place->client, &with, ret, error))
            return false;
        if (token && ret->status != 401)
            share_token(r, place, scope, token);
        if (ret->trouble || ret->status != 401 || !ours || tries == 1)
            return true;
        if (!introduce(r, place, ret, scope, header, &again, &token, error))
            return false;
        if (!again)
            return true;
    }
}

bool registry_ask(Registry *r, const HttpRequest *request, const char *also, HttpAnswer *ret, GError **error)
{
    HttpPatience patience = {0};

    for (;;) {
        if (!registry_request(r, request, also, ret, error))
            return false;
        if (!http_answer_is_transient(ret))
            return true;
        ret->known = ret->known && (r->settled || r->current + 1 >= r->places->len); /* else another one may have it */
        if (!http_patience_wait(&patience, false, ret, r->place, error))
            return false;
    }
}

/* The next place is asked when this one does not have it, or does not answer. */
static bool next_place(Registry *r, const GError *why)
{
    if (r->settled || r->current + 1 >= r->places->len || why->code == KILN_ERROR_INTERRUPTED)
        return false;
    log_verbose("%s; trying the next place", why->message);
    r->current++;
    return true;
}

/* --- manifests --- */

static bool fail_manifest(const Registry *r, const HttpAnswer *answer, const char *version, GError **error)
{
    g_autofree char *what = g_strdup_printf("manifest '%s'", version);

    return registry_fail(r, answer, what, error);
}

static char *media_type(const HttpAnswer *answer)
{
    const char *header = http_answer_header(answer, "content-type");
    g_autofree char *type = g_strndup(header ? header : "", header ? strcspn(header, "; ") : 0);

    return g_ascii_strdown(type, -1);
}

/* What the document says of itself counts more than a header. */
static bool read_type(const Registry *r, const HttpAnswer *answer, char **ret, GError **error)
{
    g_autoptr(json_t) document = NULL;
    const char *inside;
    gsize size;
    const char *data = g_bytes_get_data(answer->body, &size);
    g_autofree char *type = media_type(answer);

    if (!json_parse(data, size, REGISTRY_MANIFEST_MAX, "a manifest", &document, error))
        return fail_prefix(error, "%s", r->place);
    inside = json_string_value(json_object_get(document, "mediaType"));
    if (json_integer_value(json_object_get(document, "schemaVersion")) == 1 || strstr(type, "docker.distribution.manifest.v1+"))
        return fail(error, "%s: the image is in docker's old format (schema 1), which kiln does not read; push it anew with a docker of this decade", r->place);
    if (inside) {
        *ret = g_strdup(inside);
        return true;
    }
    if (!*type || strcmp(type, "application/json") == 0 || strcmp(type, "text/plain") == 0)
        *ret = g_strdup(json_object_get(document, "manifests") ? OCI_INDEX_TYPE : OCI_MANIFEST_TYPE);
    else
        *ret = g_steal_pointer(&type);
    return true;
}

static bool get_manifest(Registry *r, const char *version, GBytes **ret, char **ret_type, Digest *ret_digest, GError **error)
{
    g_autofree char *path = registry_path(r, "manifests/%s", version), *type = NULL;
    const char *headers[] = {accept_manifests, NULL};
    HttpRequest request = {.method = "GET", .url = path, .headers = headers, .max_body = REGISTRY_MANIFEST_MAX};
    g_auto(HttpAnswer) answer = {0};
    Digest wanted, said;
    const char *header;
    gsize size;

    if (!registry_ask(r, &request, NULL, &answer, error))
        return false;
    if (answer.trouble || answer.status != 200)
        return fail_manifest(r, &answer, version, error);
    digest_of(g_bytes_get_data(answer.body, &size), g_bytes_get_size(answer.body), ret_digest);
    if (g_str_has_prefix(version, "sha256:") && (!digest_parse(version, &wanted) || !digest_equal(&wanted, ret_digest)))
        return fail(error, "%s: the registry sent another manifest than '%s'", r->place, version);
    header = http_answer_header(&answer, "docker-content-digest");
    if (header && digest_parse(header, &said) && !digest_equal(&said, ret_digest))
        return fail(error, "%s: the registry's manifest '%s' does not have the digest that the registry says", r->place, version);
    count_received(r, size);
    if (!read_type(r, &answer, &type, error))
        return false;
    *ret = g_bytes_ref(answer.body);
    *ret_type = g_steal_pointer(&type);
    return true;
}

bool registry_get_manifest(Registry *r, const char *version, GBytes **ret, char **ret_type, Digest *ret_digest, GError **error)
{
    for (;;) {
        g_autoptr(GError) why = NULL;

        if (get_manifest(r, version, ret, ret_type, ret_digest, &why)) {
            r->settled = true;
            return true;
        }
        if (!next_place(r, why)) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
    }
}

bool registry_has_manifest(Registry *r, const char *version, Digest *ret_digest, bool *ret, GError **error)
{
    g_autofree char *path = registry_path(r, "manifests/%s", version);
    const char *headers[] = {accept_manifests, NULL}, *header;
    HttpRequest request = {.method = "HEAD", .url = path, .headers = headers};
    g_auto(HttpAnswer) answer = {0};

    if (!registry_ask(r, &request, NULL, &answer, error))
        return false;
    *ret = !answer.trouble && answer.status == 200;
    header = http_answer_header(&answer, "docker-content-digest");
    *ret_digest = digest_none;
    if (*ret && header)
        (void)digest_parse(header, ret_digest);
    return *ret || (!answer.trouble && answer.status == 404) || fail_manifest(r, &answer, version, error);
}

bool registry_put_manifest(Registry *r, const char *version, GBytes *manifest, const char *type, bool *ret_subject, GError **error)
{
    g_autofree char *path = registry_path(r, "manifests/%s", version), *content = g_strconcat("Content-Type: ", type, NULL);
    const char *headers[] = {content, NULL}, *header;
    gsize size;
    HttpRequest request = {.method = "PUT", .url = path, .headers = headers, .has_body = true, .body = g_bytes_get_data(manifest, &size)};
    g_auto(HttpAnswer) answer = {0};
    Digest ours, theirs;

    if (g_bytes_get_size(manifest) > REGISTRY_MANIFEST_MAX)
        return fail(error, "%s: the manifest would be larger than the 4 MiB that registries take", r->place);
    request.body_size = size;
    if (!registry_ask(r, &request, NULL, &answer, error))
        return false;
    if (answer.trouble || answer.status / 100 != 2) {
        (void)fail_manifest(r, &answer, version, error);
        if (error && *error && strstr((*error)->message, "BLOB_UNKNOWN"))
            (*error)->code = KILN_ERROR_NOT_FOUND;
        return false;
    }
    digest_of(g_bytes_get_data(manifest, NULL), size, &ours);
    header = http_answer_header(&answer, "docker-content-digest");
    if (header && digest_parse(header, &theirs) && !digest_equal(&ours, &theirs))
        return fail(error, "%s: the registry names the manifest by another digest than its own", r->place);
    registry_count_sent(r, size);
    if (ret_subject)
        *ret_subject = http_answer_header(&answer, "oci-subject") != NULL;
    return true;
}

/* --- blobs --- */

typedef struct Fetch {
    Registry *r;
    int fd;
    uint64_t at, size, start; /* @start: of the blob's bytes that are wanted; @at counts from there */
    bool asked_range, ranged, no_range;
    DigestStream *stream; /* NULL: not verified here */
    Progress *progress;
    uint64_t shown; /* of the progress */
    uint64_t best; /* most there ever were: coming that far again is no gain */
} Fetch;

static void start_over(Fetch *f)
{
    f->at = 0;
    if (f->stream) {
        digest_stream_free(f->stream);
        f->stream = digest_stream_new();
    }
}

static bool begin_fetch(HttpAnswer *answer, void *arg, GError **error)
{
    Fetch *f = arg;
    const char *range = http_answer_header(answer, "content-range");
    guint64 from;

    if (answer->status == 206) {
        if (!range || sscanf(range, "bytes %" G_GUINT64_FORMAT "-", &from) != 1 || from != f->start + f->at)
            f->no_range = true;
        return !f->no_range || fail(error, "%s: the registry sends another part of a blob than it was asked for", f->r->place);
    }
    if (answer->status == 200 && f->asked_range) {
        if (!f->stream) {
            f->no_range = true;
            return fail(error, "%s: the registry answers no ranges", f->r->place);
        }
        start_over(f);
    }
    return true;
}

static bool take_bytes(const void *data, size_t size, void *arg, GError **error)
{
    Fetch *f = arg;

    if (size > f->size - f->at)
        return fail(error, "%s: the registry sends more bytes of a blob than its manifest says", f->r->place);
    if (!file_pwrite_full(f->fd, data, size, f->start + f->at, "what is fetched", error))
        return false;
    if (f->stream)
        digest_stream_update(f->stream, data, size);
    f->at += size;
    if (f->at > f->shown) {
        progress_add(f->progress, f->at - f->shown);
        f->shown = f->at;
    }
    count_received(f->r, size);
    return true;
}

/* The rest of [start, start+size), in as many tries as it takes. */
static bool fetch(Fetch *f, const Digest *digest, GError **error)
{
    char oci[DIGEST_OCI_SIZE];
    g_autofree char *path = registry_path(f->r, "blobs/%s", digest_to_oci(digest, oci));
    HttpPatience patience = {0};

    while (f->at < f->size) {
        g_autofree char *range = g_strdup_printf("Range: bytes=%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT, f->start + f->at, f->start + f->size - 1);
        const char *headers[] = {NULL, NULL};
        HttpRequest request = {.method = "GET", .url = path, .headers = headers, .on_begin = begin_fetch, .on_body = take_bytes, .arg = f};
        g_auto(HttpAnswer) answer = {0};
        bool gained, whole;

        f->asked_range = f->at > 0 || !f->stream;
        headers[0] = f->asked_range ? range : NULL;
        f->best = MAX(f->best, f->at);
        if (!registry_request(f->r, &request, NULL, &answer, error))
            return false;
        whole = !answer.trouble;
        if (whole && answer.status == 416 && f->at > 0 && f->stream) {
            start_over(f); /* it has another blob than before, or less of it than it should */
            answer.trouble = g_strdup("the registry sent less of a blob than its manifest says, and has no more");
        } else if (whole && answer.status / 100 == 2 && f->at < f->size) {
            answer.trouble = g_strdup("the registry sent less of a blob than its manifest says");
        }
        if (whole && answer.trouble)
            answer.known = false; /* patience is for lines, not for lies */
        if (f->at == f->size)
            return true;
        gained = f->at > f->best;
        if (!http_answer_is_transient(&answer))
            return registry_fail(f->r, &answer, oci, error);
        if (!http_patience_wait(&patience, gained, &answer, f->r->place, error))
            return false;
    }
    return true;
}

static bool hash_what_is_there(Fetch *f, GError **error)
{
    g_autofree uint8_t *buf = g_malloc(COPY_PIECE);
    uint64_t at = 0;

    while (at < f->at) {
        ssize_t n = pread(f->fd, buf, (size_t)MIN(COPY_PIECE, f->at - at), (off_t)at);

        if (n < 0)
            return fail_errno(error, "read what was fetched before");
        if (n == 0)
            break;
        digest_stream_update(f->stream, buf, (size_t)n);
        at += (uint64_t)n;
        if (!interrupt_check(error))
            return false;
    }
    f->at = at;
    return true;
}

static bool fetch_verified(Fetch *f, const Digest *digest, bool *ret_good, GError **error)
{
    Digest got;

    if (!fetch(f, digest, error))
        return false;
    digest_stream_final(f->stream, &got);
    *ret_good = digest_equal(&got, digest);
    return *ret_good || ftruncate(f->fd, 0) == 0 || fail_errno(error, "empty the file of what is fetched");
}

bool registry_get_blob(Registry *r, const Digest *digest, uint64_t size, int fd, uint64_t have, Progress *progress, GError **error)
{
    Fetch f = {.r = r, .fd = fd, .at = MIN(have, size), .size = size, .stream = digest_stream_new(), .progress = progress};
    bool resumed = f.at > 0, good = false, ok = hash_what_is_there(&f, error);
    char hex[DIGEST_HEX_SIZE];

    if (ok && resumed) {
        progress_add(progress, f.at);
        f.shown = f.at;
    }
    ok = ok && fetch_verified(&f, digest, &good, error);
    if (ok && !good && resumed) { /* what was there may have been to blame */
        start_over(&f);
        ok = fetch_verified(&f, digest, &good, error);
    }
    digest_stream_free(f.stream);
    if (ok && !good)
        return fail(error, "%s: the registry sent a blob that does not have its digest %s; nothing of it was kept", r->place, digest_to_hex(digest, hex));
    return ok && (ftruncate(fd, (off_t)size) == 0 || fail_errno(error, "write what is fetched"));
}

bool registry_get_range(Registry *r, const Digest *digest, uint64_t from, uint64_t size, int fd, Progress *progress, bool *ret_done, GError **error)
{
    Fetch f = {.r = r, .fd = fd, .size = size, .start = from, .progress = progress};
    g_autoptr(GError) why = NULL;

    *ret_done = fetch(&f, digest, &why);
    if (!*ret_done && !f.no_range) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    return true;
}

bool registry_has_blob(Registry *r, const Digest *digest, bool *ret, GError **error)
{
    char oci[DIGEST_OCI_SIZE];
    g_autofree char *path = registry_path(r, "blobs/%s", digest_to_oci(digest, oci));
    HttpRequest request = {.method = "HEAD", .url = path};
    g_auto(HttpAnswer) answer = {0};

    if (!registry_ask(r, &request, NULL, &answer, error))
        return false;
    *ret = !answer.trouble && answer.status / 100 == 2;
    return *ret || (!answer.trouble && answer.status == 404) || registry_fail(r, &answer, oci, error);
}

/* --- lists --- */

/* <URL>; rel="next"; only the registry's own. */
static char *next_page(const HttpAnswer *answer)
{
    const char *link = http_answer_header(answer, "link"), *end = link && *link == '<' ? strchr(link, '>') : NULL;
    g_autofree char *url = end && strstr(end, "next") ? g_strndup(link + 1, (gsize)(end - link - 1)) : NULL;

    if (url && !g_str_has_prefix(url, "/v2/")) {
        const char *path = strstr(url, "/v2/");

        return path ? g_strdup(path) : NULL;
    }
    return g_steal_pointer(&url);
}

static bool add_tags(const Registry *r, const HttpAnswer *answer, GPtrArray *to, GError **error)
{
    g_autoptr(json_t) document = NULL;
    json_t *tag;
    gsize size, i;
    const char *data = g_bytes_get_data(answer->body, &size);

    if (!json_parse(data, size, LIST_MAX, "the list of tags", &document, error))
        return fail_prefix(error, "%s", r->place);
    json_array_foreach(json_object_get(document, "tags"), i, tag)
        if (json_is_string(tag))
            g_ptr_array_add(to, printable_line(json_string_value(tag)));
    return true;
}

static int compare_tags(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool registry_tags(Registry *r, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) tags = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *path = registry_path(r, "tags/list?n=1000");

    for (int page = 0; path && page < PAGES_MAX; page++) {
        HttpRequest request = {.method = "GET", .url = path, .max_body = LIST_MAX};
        g_auto(HttpAnswer) answer = {0};
        char *next;

        if (!registry_ask(r, &request, NULL, &answer, error))
            return false;
        if (answer.trouble || answer.status != 200)
            return registry_fail(r, &answer, "its list of tags", error);
        if (!add_tags(r, &answer, tags, error))
            return false;
        next = next_page(&answer);
        g_free(path);
        path = next;
    }
    g_ptr_array_sort(tags, compare_tags);
    *ret = g_steal_pointer(&tags);
    return true;
}

/* --- referrers --- */

static char *fallback_tag(const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strconcat("sha256-", digest_to_hex(digest, hex), NULL);
}

/* NULL: there is none. */
static bool load_fallback(Registry *r, const Digest *digest, json_t **ret, GError **error)
{
    g_autofree char *tag = fallback_tag(digest), *type = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) why = NULL;
    Digest ignored;

    *ret = NULL;
    if (!registry_get_manifest(r, tag, &bytes, &type, &ignored, &why)) {
        if (why->code == KILN_ERROR_NOT_FOUND)
            return true;
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    return json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "a list of referrers", ret, error);
}

bool registry_referrers(Registry *r, const Digest *digest, json_t **ret, GError **error)
{
    char oci[DIGEST_OCI_SIZE];
    g_autofree char *path = registry_path(r, "referrers/%s", digest_to_oci(digest, oci));
    const char *headers[] = {"Accept: " OCI_INDEX_TYPE, NULL};
    g_autoptr(json_t) list = json_array();

    for (int page = 0; path && page < PAGES_MAX; page++) {
        HttpRequest request = {.method = "GET", .url = path, .headers = headers, .max_body = LIST_MAX};
        g_autoptr(json_t) index = NULL;
        g_auto(HttpAnswer) answer = {0};
        bool there;
        char *next;

        if (!registry_ask(r, &request, NULL, &answer, error))
            return false;
        there = !answer.trouble && answer.status == 200;
        if (there && !json_parse(g_bytes_get_data(answer.body, NULL), g_bytes_get_size(answer.body), LIST_MAX, "the list of referrers", &index, error))
            return fail_prefix(error, "%s", r->place);
        if (!there && !load_fallback(r, digest, &index, error))
            return false;
        if (json_is_array(json_object_get(index, "manifests")))
            json_array_extend(list, json_object_get(index, "manifests"));
        next = there ? next_page(&answer) : NULL;
        g_free(path);
        path = next;
    }
    *ret = g_steal_pointer(&list);
    return true;
}

bool registry_add_referrer(Registry *r, const Digest *subject, json_t *descriptor, GError **error)
{
    g_autofree char *tag = fallback_tag(subject), *text = NULL;
    g_autoptr(json_t) index = NULL;
    g_autoptr(GBytes) bytes = NULL;
    json_t *list, *item;
    size_t i;

    if (!load_fallback(r, subject, &index, error))
        return false;
    if (!json_is_array(json_object_get(index, "manifests"))) {
        json_decref(index);
        index = json_pack("{s:i, s:s, s:[]}", "schemaVersion", 2, "mediaType", OCI_INDEX_TYPE, "manifests");
    }
    list = json_object_get(index, "manifests");
    json_array_foreach(list, i, item)
        if (g_strcmp0(json_string_value(json_object_get(item, "digest")), json_string_value(json_object_get(descriptor, "digest"))) == 0)
            return true;
    json_array_append(list, descriptor);
    text = json_canonical(index);
    bytes = g_bytes_new(text, strlen(text));
    return registry_put_manifest(r, tag, bytes, OCI_INDEX_TYPE, NULL, error);
}
