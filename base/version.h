/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln's version, as --version and what kiln writes about its results say it.
 */
#ifndef KILN_BASE_VERSION_H
#define KILN_BASE_VERSION_H

#ifndef KILN_VERSION
#define KILN_VERSION "0.1.0"
#endif

#endif
