/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The modules that a Go program was built from, as its linker wrote them down (debug/buildinfo, the form of Go 1.18 and later).
 *
 * The section ".go.buildinfo" starts with 32 bytes: "\xff Go buildinf:", the size of a pointer, flags. With flag 2 two strings follow, each
 * behind its length as a varint: the version of Go, and text between two marks of 16 bytes:
 *
 *     path  github.com/opencontainers/umoci/cmd/umoci
 *     mod   github.com/opencontainers/umoci  v0.4.7  h1:...
 *     dep   github.com/apex/log  v1.9.0  h1:...
 *     =>    github.com/other/log  v1.9.1               (stands for the dep above it)
 *
 * Go's own library is in every program, as the module "stdlib". A program that was not built from modules (Debian's) names no others.
 */
#include "baker/package-parts.h"

#include "store/store.h"

#include <elf.h>
#include <string.h>

#define PROGRAM_MIN (512u << 10) /* no Go program is smaller */
#define SECTIONS_MAX 4096u
#define NAMES_MAX ((size_t)1 << 20)
#define INFO_MAX ((size_t)4 << 20)
#define MARK 16u

typedef struct Program {
    StoreMap *files;
    uint64_t offset, size;
    GError **error;
    bool failed; /* the store could not be read; a damaged program is none */
} Program;

static bool read_at(Program *program, void *to, size_t size, uint64_t at)
{
    if (at > program->size || size > program->size - at)
        return false;
    if (!store_map_pread(program->files, to, size, program->offset + at, program->error)) {
        program->failed = true;
        return false;
    }
    return true;
}

static bool is_64_bit_elf(const Elf64_Ehdr *header)
{
    return memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 && header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_ident[EI_DATA] == ELFDATA2LSB &&
           header->e_shentsize == sizeof(Elf64_Shdr) && header->e_shnum > 0 && header->e_shnum <= SECTIONS_MAX &&
           header->e_shstrndx < header->e_shnum;
}

/* Where the section is. */
static bool find_section(Program *program, const Elf64_Ehdr *header, uint64_t *ret_offset, uint64_t *ret_size)
{
    g_autofree Elf64_Shdr *sections = g_new(Elf64_Shdr, header->e_shnum);
    g_autofree char *names = NULL;
    const Elf64_Shdr *strings = &sections[header->e_shstrndx];

    if (!read_at(program, sections, sizeof *sections * header->e_shnum, header->e_shoff) || strings->sh_size == 0 || strings->sh_size > NAMES_MAX)
        return false;
    names = g_malloc(strings->sh_size);
    if (!read_at(program, names, strings->sh_size, strings->sh_offset))
        return false;
    names[strings->sh_size - 1] = '\0';
    for (unsigned i = 0; i < header->e_shnum; i++)
        if (sections[i].sh_name < strings->sh_size && strcmp(names + sections[i].sh_name, ".go.buildinfo") == 0) {
            *ret_offset = sections[i].sh_offset;
            *ret_size = sections[i].sh_size;
            return true;
        }
    return false;
}

/* A string behind its length; what is left of the section starts behind it. */
static bool take_string(const unsigned char **from, const unsigned char *end, const unsigned char **ret, size_t *ret_size)
{
    uint64_t size = 0;

    for (unsigned shift = 0; *from < end && shift < 35; shift += 7) {
        unsigned char byte = *(*from)++;

        size |= (uint64_t)(byte & 0x7f) << shift;
        if (byte & 0x80)
            continue;
        if (size > (size_t)(end - *from))
            return false;
        *ret = *from;
        *ret_size = (size_t)size;
        *from += size;
        return true;
    }
    return false;
}

static char *first_word(const char *text, size_t size)
{
    const char *blank = memchr(text, ' ', size);

    return g_strndup(text, blank ? (gsize)(blank - text) : size);
}

/* *ret_version: "1.19.8", NULL where it is no release. */
static char *module_text(Program *program, uint64_t offset, uint64_t size, char **ret_version)
{
    static const char magic[] = "\xff Go buildinf:";
    g_autofree unsigned char *section = NULL;
    const unsigned char *at, *text;
    size_t length;

    if (size < 32 || size > INFO_MAX)
        return NULL;
    section = g_malloc(size);
    if (!read_at(program, section, size, offset) || memcmp(section, magic, sizeof magic - 1) != 0 || !(section[15] & 2))
        return NULL;
    at = section + 32;
    if (!take_string(&at, section + size, &text, &length))
        return NULL;
    if (length > 2 && memcmp(text, "go", 2) == 0 && g_ascii_isdigit(text[2]))
        *ret_version = first_word((const char *)text + 2, length - 2);
    if (!take_string(&at, section + size, &text, &length) || length < 2 * MARK)
        return NULL;
    return g_strndup((const char *)text + MARK, length - 2 * MARK);
}

static void add_module(PackageScan *scan, const char *name, const char *version, const char *path)
{
    Package *package = g_new0(Package, 1);

    package->type = g_strdup("golang");
    package->name = g_strdup(name);
    package->version = g_strdup(version);
    package->path = g_strdup(path);
    package_found(scan, package);
}

static void add_modules(PackageScan *scan, const char *text, const char *path)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        g_auto(GStrv) words = g_strsplit(*line, "\t", -1);
        bool replaced = line[1] && g_str_has_prefix(line[1], "=>\t");

        if (!replaced && (g_str_has_prefix(*line, "mod\t") || g_str_has_prefix(*line, "dep\t") || g_str_has_prefix(*line, "=>\t")))
            add_module(scan, words[1], words[1] ? words[2] : NULL, path);
    }
}

bool package_go_read(PackageScan *scan, const TreeEntry *entry, GError **error)
{
    Program program = {.files = scan->files, .offset = entry->data_offset, .size = entry->size, .error = error};
    Elf64_Ehdr header;
    uint64_t offset, size;
    g_autofree char *text = NULL, *version = NULL;

    if (entry->type != 'f' || entry->size < PROGRAM_MIN || !(entry->mode & 0111))
        return true;
    if (read_at(&program, &header, sizeof header, 0) && is_64_bit_elf(&header) && find_section(&program, &header, &offset, &size))
        text = module_text(&program, offset, size, &version);
    if (version)
        add_module(scan, "stdlib", version, entry->path);
    if (text)
        add_modules(scan, text, entry->path);
    return !program.failed;
}
