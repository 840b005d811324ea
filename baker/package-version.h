/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of versions, which every kind of package has of its own.
 */
#ifndef KILN_BAKER_PACKAGE_VERSION_H
#define KILN_BAKER_PACKAGE_VERSION_H

/*
 * <0, 0, >0 by the rules for packages of @type (Package.type): deb-version(7), rpm-version(7), apk's, PEP 440 for Python, semantic versions
 * for npm and Go. As in rpm's own dependencies a version without a release is that of every release.
 */
int package_version_compare(const char *type, const char *a, const char *b);

#endif
