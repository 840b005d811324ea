/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bills of materials: the list of packages in the words of SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/) and CycloneDX 1.5
 * (https://cyclonedx.org/docs/1.5/json/). Equal images published at the same time give equal bytes.
 *
 * Licences are what a package's own description says, free text: SPDX wants expressions of its list, so they stand in comments there.
 */
#ifndef KILN_BAKER_SBOM_H
#define KILN_BAKER_SBOM_H

#include "baker/package-db.h"

typedef json_t *SbomFn(const StoreImage *image, const PackageList *list);
SbomFn sbom_spdx, sbom_cyclonedx;

#endif
