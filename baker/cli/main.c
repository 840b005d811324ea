/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `kiln` program: takes the global flags out of the command line, wherever
 * they stand, and calls one verb.
 */
#include "baker/cli/cli.h"

#include "base/http.h"
#include "base/interrupt.h"
#include "base/units.h"
#include "base/version.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    CliVerbFn *run;
    const char *usage;
    const char *summary;
} verbs[] = {
    {"plan", verb_plan, "plan [-var K=V] [-var-file F] [-only G] [-except G] [--offline] [-pull=always|changed|never] [-detailed-exitcode] TEMPLATE...",
     "what a bake would do, and why"},
    {"bake", verb_bake,
     "bake [-var K=V] [-var-file F] [-only G] [-except G] [--offline] [-pull=always|changed|never] [--refresh] [--no-cache]\n"
     "     [--lock F] [--locked F] [--fresh-since T] [-on-error=cleanup|abort|ask|run-cleanup-provisioner] [--shell-at STEP] [-parallel-builds=N] [--outdated] TEMPLATE...",
     "bake templates into images"},
    {"build", verb_bake, "build TEMPLATE...", "the same as bake"},
    {"new", verb_new, "new DIR", "write a starter template"},
    {"init", verb_init, "init TEMPLATE", "the plugins a template asks for, and what stands in for them"},
    {"validate", verb_validate, "validate [-syntax-only] [-var K=V] [-var-file F] [-only G] [-except G] TEMPLATE|FOLDER|-...",
     "check templates without baking"},
    {"inspect", verb_inspect, "inspect [-var K=V] [-var-file F] TEMPLATE", "what a template declares"},
    {"console", verb_console, "console [-var K=V] [-var-file F] [TEMPLATE] [EXPRESSION]...", "evaluate expressions"},
    {"fmt", verb_fmt, "fmt [-check] [-diff] [-write=false] [-recursive] [TEMPLATE|FOLDER|-]...", "bring templates into the usual layout"},
    {"template", verb_template, "template inputs [-var K=V] [-var-file F] TEMPLATE",
     "every file, URL and variable a template depends on"},
    {"verify", verb_verify, "verify [-var K=V] [-var-file F] [-only G] [-except G] TEMPLATE...", "bake twice from nothing and compare"},
    {"boot", verb_boot, "boot REF [--forward HOSTPORT:GUESTPORT] [--check URL] [--timeout T]",
     "boot a throw-away overlay of a disk"},
    {"nightly", verb_nightly, "nightly [-var K=V] [-var-file F] [--offline] [-parallel-builds=N] FILE", "patch a list of images"},
    {"images", verb_images, "images [--all] [--outdated [--offline]] [NAME]", "list images"},
    {"promote", verb_promote,
     "promote [--reason TEXT] [--on-behalf-of WHO] [--expect ID|none] REF CHANNEL\n"
     "       kiln promote --previous [--reason TEXT] [--on-behalf-of WHO] [--expect ID] NAME[/KIND] CHANNEL",
     "point a channel at an image, or back"},
    {"channels", verb_channels,
     "channels [--history] [NAME]\n"
     "       kiln channels set [--require-reason] [--require-test] [--require-from CHANNEL] [--require-none] [--reason TEXT] [--on-behalf-of WHO]\n"
     "           NAME:CHANNEL",
     "where channels point, and what they ask for"},
    {"tag", verb_tag, "tag REF NAME", "give an image one more name"},
    {"revoke", verb_revoke, "revoke --reason TEXT [--stop] [--on-behalf-of WHO] [--dry-run] REF",
     "forbid to promote an image, to bake from it or to roll it out"},
    {"sign", verb_sign, "sign [--key FILE] REF\n       kiln sign [--key FILE] --heads\n       kiln sign --generate FILE",
     "sign an image or the logs, or make a key"},
    {"verify-signature", verb_verify_signature, "verify-signature --key FILE.pub REF", "check an image's signature"},
    {"audit", verb_audit, "audit [--since T] [--group G] [--image REF] [--key FILE.pub]", "who did what, when and why; checks the logs"},
    {"deploy", verb_deploy, "deploy plan|apply|approve|watch|status|continue|pause|abort|rollback|resume|scale|drift|history|destroy|balancer-config ...",
     "roll images out to groups of instances"},
    {"show", verb_show, "show REF", "everything known about an image"},
    {"diff", verb_diff, "diff [--patch] REF REF", "what changed between two images: packages, then files"},
    {"files", verb_files, "files REF [PATH]", "the files of an image"},
    {"cat", verb_cat, "cat REF PATH...", "a file of an image"},
    {"blame", verb_blame, "blame REF PATH...", "the step and the package that brought a file"},
    {"find", verb_find, "find --package 'NAME[<|<=|=|>=|>VERSION]' [--all]", "the images that have a package"},
    {"sbom", verb_sbom, "sbom REF [--format=spdx|cyclonedx]", "the bill of materials of an image"},
    {"export", verb_export, "export REF FILE [--format=raw|qcow2|gce|oci-archive|oci-dir|docker-archive|tar] [--path PATH]", "write an image to a file"},
    {"nbd", verb_nbd, "nbd REF --socket PATH|--port N", "serve a disk read-only over NBD, to boot from the store"},
    {"serve", verb_serve,
     "serve [--listen HOST:PORT]... [--tls-cert FILE --tls-key FILE] [--plain-http] [--htpasswd FILE] [--write-users U[,U...]|'*']\n"
     "     [--anonymous-read] [--access-log FILE|-] [--max-blob SIZE] [--max-uploads SIZE] [--max-uploads-per-user SIZE] [--upload-idle T]\n"
     "     [--max-connections N] [--max-connections-per-address N] [--idle T] [--stop-timeout T]",
     "serve the store as an OCI registry"},
    {"import", verb_import, "import FILE|FOLDER NAME [--parent REF [--full-read RAW]]", "take in a disk or a container image that was made elsewhere"},
    {"push", verb_push, "push REF docker://HOST/REPOSITORY:TAG [--format=oci|docker|disk|raw.zst|qcow2] [--plain-http]", "send an image to a registry"},
    {"pull", verb_pull, "pull docker://HOST/REPOSITORY[:TAG|@DIGEST] [NAME] [--arch=ARCH] [--plain-http]", "fetch an image from a registry"},
    {"copy", verb_copy, "copy SRC DST [--arch=ARCH] [--plain-http] [--no-referrers]", "copy an image between registries, layouts and archives"},
    {"tags", verb_tags, "tags docker://HOST/REPOSITORY [--plain-http]", "list the tags of a repository"},
    {"rm", verb_rm, "rm REF...", "remove images"},
    {"prune", verb_prune, "prune [--keep-last N] [--keep-daily N] [--keep-weekly N] [--keep-monthly N] [--dry-run] [NAME]...",
     "let old images go by rules, but for their records"},
    {"keep", verb_keep, "keep [--release] [--reason TEXT] [--on-behalf-of WHO] [REF]...", "hold images against prune and rm; without REF: list"},
    {"gc", verb_gc, "gc [--dry-run] [--grace T] [--drop-states] [--state-quota SIZE]",
     "remove what nothing refers to"},
    {"fsck", verb_fsck, "fsck [--read-data [--rate SIZE] [--subset N/T]] [--repair [--from DIR]] [--rebuild-index] [--rebuild]", "check and repair the store"},
    {"sync", verb_sync, "sync --all DIR", "copy the store into another folder, or what is new in it"},
    {"stats", verb_stats, "stats", "what the store holds"},
    {"appliance", verb_appliance, "appliance build [--force]", "make the virtual machine that steps run in"},
    {"doctor", verb_doctor, "doctor", "check that this machine can bake"},
};

static int usage(FILE *out, int status)
{
    fputs("usage: kiln [--store DIR] [--json] [--quiet|--verbose] [--url-map PREFIX=DIR] VERB ...\n\n", out);
    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++)
        fprintf(out, "  %-16s %s\n", verbs[i].name, verbs[i].summary);
    fputs("  version          print the version\n\nkiln VERB --help shows a verb's usage; the manual is kiln(1).\n", out);
    return status;
}

/* True when argv[*at] is --NAME or -NAME; *ret_value is set when @takes_value. */
static bool global_is(const char *name, bool takes_value, int argc, char **argv, int *at, const char **ret_value)
{
    const char *text = argv[*at] + (g_str_has_prefix(argv[*at], "--") ? 2 : 1);
    size_t size = strlen(name);

    if (argv[*at][0] != '-' || strncmp(text, name, size) != 0)
        return false;
    if (!takes_value)
        return text[size] == '\0';
    if (text[size] == '=') {
        *ret_value = text + size + 1;
        return true;
    }
    if (text[size] != '\0' || *at + 1 >= argc)
        return false;
    *ret_value = argv[++*at];
    return true;
}

typedef struct Globals {
    bool help, version;
    GPtrArray *rest;
} Globals;

static bool take_globals(CliContext *cli, Globals *globals, int argc, char **argv, GError **error)
{
    const char *value = NULL;
    bool only_arguments = false;

    for (int i = 1; i < argc; i++) {
        if (only_arguments || argv[i][0] != '-')
            g_ptr_array_add(globals->rest, argv[i]);
        else if (strcmp(argv[i], "--") == 0) {
            only_arguments = true;
            g_ptr_array_add(globals->rest, argv[i]);
        } else if (global_is("store", true, argc, argv, &i, &value))
            cli->store_dir = value;
        else if (global_is("url-map", true, argc, argv, &i, &value)) {
            if (!http_url_map_add(value, error))
                return false;
        } else if (global_is("json", false, argc, argv, &i, NULL))
            cli->json = true;
        else if (global_is("quiet", false, argc, argv, &i, NULL))
            log_set_level(LOG_QUIET);
        else if (global_is("verbose", false, argc, argv, &i, NULL))
            log_set_level(LOG_VERBOSE);
        else if (global_is("help", false, argc, argv, &i, NULL) || global_is("h", false, argc, argv, &i, NULL))
            globals->help = true;
        else if (global_is("version", false, argc, argv, &i, NULL))
            globals->version = true;
        else
            g_ptr_array_add(globals->rest, argv[i]);
    }
    return true;
}

static int unknown_verb(CliContext *cli, const char *name)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    const char *near;

    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++)
        g_ptr_array_add(names, (char *)verbs[i].name);
    g_ptr_array_add(names, NULL);
    near = units_nearest(name, (const char *const *)names->pdata);
    if (near)
        fail_code(&error, KILN_ERROR_USAGE, "unknown verb '%s', did you mean '%s'?", name, near);
    else
        fail_code(&error, KILN_ERROR_USAGE, "unknown verb '%s'; kiln --help lists them", name);
    return cli_fail(cli, error);
}

int main(int argc, char **argv)
{
    CliContext cli = {0};
    g_autoptr(GPtrArray) rest = g_ptr_array_new();
    Globals globals = {.rest = rest};
    g_autoptr(GError) error = NULL;
    const char *verb;

    /* Frames are as large as what malloc keeps for reuse, in a heap of its own for each thread; two heaps hold a sixth less. */
    (void)mallopt(M_ARENA_MAX, 2);
    interrupt_install();
    if (!take_globals(&cli, &globals, argc, argv, &error))
        return cli_fail(&cli, error);
    verb = rest->len ? rest->pdata[0] : NULL;
    if (globals.version || g_strcmp0(verb, "version") == 0) {
        puts("kiln " KILN_VERSION);
        return 0;
    }
    if (!verb || strcmp(verb, "help") == 0)
        return usage(globals.help || verb ? stdout : stderr, globals.help || verb ? 0 : 2);
    cli.verb = verb;
    g_ptr_array_add(rest, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
        if (strcmp(verbs[i].name, verb) != 0)
            continue;
        if (globals.help) {
            printf("usage: kiln %s\n\n%s\n", verbs[i].usage, verbs[i].summary);
            return 0;
        }
        return verbs[i].run(&cli, (int)rest->len - 1, (char **)rest->pdata);
    }
    return unknown_verb(&cli, verb);
}
