/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a bucket is and who we are there, by the variables and files that all of Amazon's programs read:
 *
 *   AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN      else the profile in the files
 *   AWS_REGION, AWS_DEFAULT_REGION                                 else the profile's, else us-east-1
 *   AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL                          else the profile's, else Amazon's
 *   AWS_CA_BUNDLE                                                  else the profile's, else the system's
 *   AWS_PROFILE; AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE      else default; ~/.aws/credentials, ~/.aws/config
 */
#ifndef KILN_STORE_S3_ACCOUNT_H
#define KILN_STORE_S3_ACCOUNT_H

#include <glib.h>
#include <stdbool.h>

typedef struct S3Account {
    char *access_key, *secret_key, *session_token;
    char *region, *endpoint, *ca_file; /* endpoint and ca_file may be NULL */
} S3Account;
void s3_account_clear(S3Account *account);

bool s3_account_find(S3Account *ret, GError **error);

/* The value of @name in [@section] of an INI text as Amazon's files are; NULL: none. Free with g_free. */
char *s3_profile_value(const char *text, const char *section, const char *name);

#endif
