/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What S3 answers in XML. The door to expat.
 */
#ifndef KILN_STORE_S3_ANSWER_H
#define KILN_STORE_S3_ANSWER_H

#include "store/remote.h"

typedef struct S3Answer {
    char *root;               /* the outermost element: "Error", "ListBucketResult", ... */
    char *code, *message;     /* of an error */
    char *upload_id, *etag;
    bool truncated;
    GPtrArray *entries;       /* of RemoteEntry*: a list's keys, as they stand there */
} S3Answer;
void s3_answer_clear(S3Answer *answer);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(S3Answer, s3_answer_clear)

/* Refused: what is no XML, has a document type, is deeper or longer than such answers are. @ret is to be cleared in any case. */
bool s3_answer_parse(const void *data, size_t size, S3Answer *ret, GError **error);

#endif
