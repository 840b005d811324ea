/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HAProxy's runtime API over its unix socket: one connection per question, the answer is read to its end.
 */
#ifndef KILN_DEPLOY_HAPROXY_SOCKET_H
#define KILN_DEPLOY_HAPROXY_SOCKET_H

#include <glib.h>
#include <stdbool.h>

#define HAPROXY_TIMEOUT 2.0                  /* seconds for a question and its answer */
#define HAPROXY_ANSWER_MAX (16 * 1024 * 1024)

/*
 * Sends @commands (one line; several are parted by ';' and done one after the other) and takes the whole answer, which is text without NUL
 * bytes. A balancer that is not there, is silent, or never ends is an error naming @socket_path. The answer's meaning is the caller's.
 */
bool haproxy_ask(const char *socket_path, const char *commands, char **ret_answer, GError **error);

#endif
