/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both files of the door to libcurl need: http.c and http-request.c, nobody else.
 */
#ifndef KILN_BASE_HTTP_CURL_H
#define KILN_BASE_HTTP_CURL_H

#include <curl/curl.h>
#include <stdbool.h>

/* A handle, with the library begun. */
CURL *http_curl_new(void);

/* What is to be thought of a transfer that failed. */
typedef enum HttpFate {
    HTTP_PASSES,       /* try again */
    HTTP_PASSES_EARLY, /* no connection: try again, but not often */
    HTTP_HOPELESS,
} HttpFate;
HttpFate http_fate_of(CURLcode code);

/* 408, 425, 429, most of 5xx. */
bool http_status_passes(long status);

#endif
