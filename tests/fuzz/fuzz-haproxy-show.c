/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: whatever a balancer may answer. What is taken for servers' states comes back the same from the file that is written of it, and a name
 * that is taken can end no word and no command.
 */
#include "deploy/haproxy-config.h"
#include "deploy/haproxy-show.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_servers(const char *text)
{
    g_autoptr(GPtrArray) servers = NULL, again = NULL, pool = NULL;
    g_autofree char *state = NULL;

    if (!haproxy_parse_servers(text, &servers, NULL))
        return;
    for (guint i = 0; i < servers->len; i++) {
        const HaproxyServer *server = servers->pdata[i];

        if (strpbrk(server->name, " ;\n#/") || strpbrk(server->backend, " ;\n#/") || !*server->name)
            abort();
    }
    state = haproxy_state_text(servers);
    if (!haproxy_parse_servers(state, &again, NULL) || again->len != servers->len)
        abort();
    (void)haproxy_pool(servers, "web", NULL, &pool, NULL);
}

static void check_stats(const char *text)
{
    g_autoptr(GPtrArray) stats = NULL;

    if (!haproxy_parse_stats(text, &stats, NULL))
        return;
    for (guint i = 1; i < stats->len; i++) {
        const HaproxyStat *a = stats->pdata[i - 1], *b = stats->pdata[i];

        if (!(haproxy_mean_between(a->answers, a->time_ms, b->answers, b->time_ms) >= 0))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size), *value = NULL;
    char *sockets[] = {"/a", NULL}, *files[] = {"/s", NULL};
    HaproxySettings settings = {.group = "web", .sockets = sockets, .state_files = files, .maps = files, .count = 1, .backend = "web",
                                .backends = {"web-0", "web-1"}, .colors = 2};
    HaproxyInfo info;

    check_servers(text);
    check_stats(text);
    (void)haproxy_parse_info(text, &info, NULL);
    (void)haproxy_parse_map(text, "web", &value, NULL);
    (void)haproxy_config_check(&settings, 0, text, NULL);
    return 0;
}
