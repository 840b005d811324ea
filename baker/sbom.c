/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a bill says of the whole comes from the image, what it says of the parts from the list; nothing else is known here.
 */
#include "baker/sbom.h"

#include "base/version.h"

#include <string.h>

#define RFC3986 G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "-._~:/?#[]@!$&'()*+,;=%"

/* RFC 3339, in UTC: both formats want it so. */
static char *moment(int64_t seconds)
{
    g_autoptr(GDateTime) when = g_date_time_new_from_unix_utc(seconds);

    return when ? g_date_time_format(when, "%Y-%m-%dT%H:%M:%SZ") : g_strdup("1970-01-01T00:00:00Z");
}

/* A UUID that is the image's own. */
static char *uuid_of(const StoreImage *image, const char *role)
{
    char id[DIGEST_OCI_SIZE];
    char text[DIGEST_UUID_SIZE];
    uint8_t uuid[16];

    digest_uuid5(digest_to_oci(&image->id, id), role, uuid);
    digest_uuid_text(uuid, text);
    return g_strdup(text);
}

/* Both formats want a URI here; maintainers write what they like. */
static bool is_url(const char *homepage)
{
    return homepage && strstr(homepage, "://") && homepage[strspn(homepage, RFC3986)] == '\0' && g_uri_is_valid(homepage, G_URI_FLAGS_NONE, NULL);
}

/* --- SPDX ------------------------------------------------------------------------------------------ */

/* "Name <mail>" is a person in dpkg's and npm's descriptions, all else an organization, also "SUSE LLC <https://www.suse.com/>". */
static json_t *spdx_supplier(const char *supplier)
{
    const char *mail = strchr(supplier, '<');
    g_autofree char *name = mail ? g_strndup(supplier, (gsize)(mail - supplier)) : g_strdup(supplier);
    g_autofree char *address = mail ? g_strndup(mail + 1, strcspn(mail + 1, ">")) : NULL;

    g_strstrip(name);
    if (mail && *name && !strchr(address, '@'))
        return json_sprintf("Organization: %s", name);
    return mail && *name ? json_sprintf("Person: %s (%s)", name, address) : json_sprintf("Organization: %s", supplier);
}

static json_t *spdx_package(const Package *package, const char *system, guint number)
{
    g_autofree char *url = package_url(package, system);
    json_t *one = json_pack("{s:o, s:s, s:s, s:s, s:b, s:s, s:s, s:s, s:[{s:s, s:s, s:s}]}", "SPDXID", json_sprintf("SPDXRef-Package-%u", number),
                            "name", package->name, "versionInfo", package->version, "downloadLocation", "NOASSERTION", "filesAnalyzed", false,
                            "licenseConcluded", "NOASSERTION", "licenseDeclared", "NOASSERTION", "copyrightText", "NOASSERTION", "externalRefs",
                            "referenceCategory", "PACKAGE-MANAGER", "referenceType", "purl", "referenceLocator", url);

    if (package->supplier)
        json_object_set_new(one, "supplier", spdx_supplier(package->supplier));
    if (is_url(package->homepage))
        json_object_set_new(one, "homepage", json_string(package->homepage));
    if (package->license)
        json_object_set_new(one, "licenseComments", json_sprintf("The package says: %s", package->license));
    if (package->source)
        json_object_set_new(one, "sourceInfo", json_sprintf("built from %s", package->source));
    if (package->path)
        json_object_set_new(one, "comment", json_sprintf("found in /%s", package->path));
    return one;
}

static json_t *relationship(const char *from, const char *type, json_t *to)
{
    return json_pack("{s:s, s:s, s:o}", "spdxElementId", from, "relationshipType", type, "relatedSpdxElement", to);
}

/* The image itself, which contains all others. */
static json_t *spdx_image(const StoreImage *image)
{
    char hex[DIGEST_HEX_SIZE], id[DIGEST_OCI_SIZE];

    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:s, s:s, s:[{s:s, s:s}]}", "SPDXID", "SPDXRef-Image", "name", image->name, "versionInfo",
                     digest_to_oci(&image->id, id), "downloadLocation", "NOASSERTION", "filesAnalyzed", false, "licenseConcluded", "NOASSERTION",
                     "licenseDeclared", "NOASSERTION", "copyrightText", "NOASSERTION", "primaryPackagePurpose",
                     strcmp(image->kind, "oci") == 0 ? "CONTAINER" : "OPERATING_SYSTEM", "checksums", "algorithm", "SHA256", "checksumValue",
                     digest_to_hex(&image->id, hex));
}

json_t *sbom_spdx(const StoreImage *image, const PackageList *list)
{
    g_autofree char *created = moment(image->created), *uuid = uuid_of(image, "spdx");
    json_t *packages = json_array(), *relations = json_array();

    json_array_append_new(packages, spdx_image(image));
    json_array_append_new(relations, relationship("SPDXRef-DOCUMENT", "DESCRIBES", json_string("SPDXRef-Image")));
    for (guint i = 0; i < list->all->len; i++) {
        json_array_append_new(packages, spdx_package(list->all->pdata[i], list->system, i + 1));
        json_array_append_new(relations, relationship("SPDXRef-Image", "CONTAINS", json_sprintf("SPDXRef-Package-%u", i + 1)));
    }
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:{s:s, s:[s]}, s:o, s:o}", "spdxVersion", "SPDX-2.3", "dataLicense", "CC0-1.0", "SPDXID",
                     "SPDXRef-DOCUMENT", "name", json_sprintf("%s-%s", image->name, image->kind), "documentNamespace",
                     json_sprintf("https://spdx.org/spdxdocs/%s-%s", image->name, uuid), "creationInfo", "created", created, "creators",
                     "Tool: kiln-" KILN_VERSION, "packages", packages, "relationships", relations);
}

/* --- CycloneDX --------------------------------------------------------------------------------------- */

static void add_property(json_t *component, const char *name, const char *value)
{
    if (!value)
        return;
    if (!json_object_get(component, "properties"))
        json_object_set_new(component, "properties", json_array());
    json_array_append_new(json_object_get(component, "properties"), json_pack("{s:s, s:s}", "name", name, "value", value));
}

/* References are numbered: one package URL may stand for several finds, and each component needs a reference of its own. */
static json_t *cyclonedx_component(const Package *package, const char *system, guint number)
{
    g_autofree char *url = package_url(package, system);
    json_t *one = json_pack("{s:s, s:o, s:s, s:s, s:s}", "type", "library", "bom-ref", json_sprintf("package-%u", number), "name", package->name,
                            "version", package->version, "purl", url);

    if (package->supplier)
        json_object_set_new(one, "supplier", json_pack("{s:s}", "name", package->supplier));
    if (package->license)
        json_object_set_new(one, "licenses", json_pack("[{s:{s:s}}]", "license", "name", package->license));
    if (is_url(package->homepage))
        json_object_set_new(one, "externalReferences", json_pack("[{s:s, s:s}]", "type", "website", "url", package->homepage));
    add_property(one, "kiln:source", package->source);
    add_property(one, "kiln:architecture", package->architecture);
    add_property(one, "kiln:path", package->path);
    return one;
}

json_t *sbom_cyclonedx(const StoreImage *image, const PackageList *list)
{
    g_autofree char *created = moment(image->created), *uuid = uuid_of(image, "cyclonedx");
    json_t *components = json_array(), *parts = json_array();
    char id[DIGEST_OCI_SIZE], hex[DIGEST_HEX_SIZE];
    json_t *whole = json_pack("{s:s, s:s, s:s, s:s, s:[{s:s, s:s}]}", "type", strcmp(image->kind, "oci") == 0 ? "container" : "operating-system",
                              "bom-ref", "image", "name", image->name, "version", digest_to_oci(&image->id, id), "hashes", "alg", "SHA-256",
                              "content", digest_to_hex(&image->id, hex));

    for (guint i = 0; i < list->all->len; i++) {
        json_array_append_new(components, cyclonedx_component(list->all->pdata[i], list->system, i + 1));
        json_array_append_new(parts, json_sprintf("package-%u", i + 1));
    }
    return json_pack("{s:s, s:s, s:o, s:i, s:{s:s, s:{s:[{s:s, s:s, s:s}]}, s:o}, s:o, s:[{s:s, s:o}]}", "bomFormat", "CycloneDX", "specVersion", "1.5",
                     "serialNumber", json_sprintf("urn:uuid:%s", uuid), "version", 1, "metadata", "timestamp", created, "tools", "components",
                     "type", "application", "name", "kiln", "version", KILN_VERSION, "component", whole, "components", components, "dependencies",
                     "ref", "image", "dependsOn", parts);
}
