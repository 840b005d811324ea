/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a group is rolled out: the strategy, a canary's steps, and what judges them.
 *
 * All that can be computed beforehand is: that something can be replaced at all (surge and unavailable are not both 0), that steps
 * rise, that a judged step leaves a half to compare with, and that canaries and their baseline fit under the ceiling.
 */
#include "deploy/group-private.h"

#include "base/units.h"

#include <math.h>
#include <string.h>

enum { SAMPLES_MAX = 100000, SAMPLES_DEFAULT = 50, SAMPLES_MIN = 5, RETRIES_DEFAULT = 2, COMMAND_MAX = 64 };

static const char *const rolling_arguments[] = {"max_surge", "max_unavailable", "start_retries", NULL};
static const char *const bluegreen_arguments[] = {"max_surge", "max_unavailable", "start_retries", "gate", NULL};
static const char *const canary_arguments[] = {"max_surge", "max_unavailable", "start_retries", "gate", "steps", "hold", "baseline", "sticky", "analysis", NULL};

static const char *const strategy_names[] = {[STRATEGY_ROLLING] = "rolling", [STRATEGY_BLUEGREEN] = "bluegreen", [STRATEGY_CANARY] = "canary", NULL};
static const char *const *const strategy_arguments[] = {
    [STRATEGY_ROLLING] = rolling_arguments, [STRATEGY_BLUEGREEN] = bluegreen_arguments, [STRATEGY_CANARY] = canary_arguments};

void analysis_spec_free(AnalysisSpec *spec)
{
    if (!spec)
        return;
    g_free(spec->url);
    g_free(spec->query_canary);
    g_free(spec->query_baseline);
    g_strfreev(spec->command);
    g_free(spec);
}

unsigned group_step_count(const CanaryStep *step, unsigned size)
{
    uint64_t count = step->percent ? ((uint64_t)size * step->percent + 99) / 100 : step->count;

    return (unsigned)MIN(MAX(count, 1), MAX(size, 1));
}

/* --- how many at once --- */

static bool get_percent(const char *text, unsigned *ret)
{
    char *end;
    uint64_t percent;

    if (!text || !g_ascii_isdigit(*text) || strlen(text) > 4)
        return false;
    percent = g_ascii_strtoull(text, &end, 10);
    *ret = (unsigned)percent;
    return strcmp(end, "%") == 0 && percent <= 100;
}

/* A number of instances, or "25%" of the size in the file: a surge is rounded up, unavailable ones down, as Kubernetes does. */
static unsigned read_amount(const GroupPart *part, const char *argument, unsigned otherwise, bool up)
{
    const json_t *value = json_object_get(part->object, argument);
    const char *text = json_string_value(value);
    unsigned percent, size = part->reader->file->size;

    if (!text || !strchr(text, '%'))
        return part_count(part, argument, otherwise, 0, GROUP_SIZE_MAX);
    if (!get_percent(text, &percent)) {
        part_wrong(part, argument, "'%s' must be a number of instances, or a percentage from \"0%%\" to \"100%%\"", argument);
        return otherwise;
    }
    if (!part->reader->file->size_given) {
        part_wrong(part, argument, "a percentage is one of the size in this file: write `size`, or a number of instances here");
        return otherwise;
    }
    return (size * percent + (up ? 99 : 0)) / 100;
}

static const char *shown_amount(const GroupPart *part, const char *argument)
{
    return json_is_string(json_object_get(part->object, argument)) ? " when it is rounded" : "";
}

static void check_amounts(const GroupPart *part)
{
    const GroupRules *rules = &part->reader->spec->rules;
    unsigned size = part->reader->file->size;
    const char *culprit = part_has(part, "max_unavailable") ? "max_unavailable" : "max_surge";

    if (rules->strategy != STRATEGY_BLUEGREEN && rules->max_surge == 0 && rules->max_unavailable == 0)
        part_wrong(part, culprit,
                   "max_surge is 0%s and max_unavailable is 0%s: then no instance can ever be replaced, as none may be added and none may be missing",
                   shown_amount(part, "max_surge"), shown_amount(part, "max_unavailable"));
    if (part->reader->file->size_given && size > 0 && rules->max_unavailable > size)
        part_wrong(part, "max_unavailable", "%u instances may not be missing from a group of %u", rules->max_unavailable, size);
}

/* Slots that own volumes have one instance at a time, so nothing can be added before something goes. */
static void check_volumes(const GroupPart *part)
{
    const GroupRules *rules = &part->reader->spec->rules;

    if (!rules->exclusive)
        return;
    if (rules->strategy == STRATEGY_BLUEGREEN)
        part_wrong(part, NULL, "blue/green has two instances of each slot, but a volume is attached to one at a time: use strategy \"rolling\"");
    else if (part->reader->surge_given && rules->max_surge > 0)
        part_wrong(part, "max_surge", "a group with volumes has max_surge = 0, as a volume is attached to one instance at a time");
}

static void read_amounts(const GroupPart *part)
{
    GroupReader *reader = part->reader;
    GroupRules *rules = &reader->spec->rules;

    reader->surge_given = part_has(part, "max_surge");
    reader->unavailable_given = part_has(part, "max_unavailable");
    rules->max_surge = read_amount(part, "max_surge", rules->exclusive ? 0 : 1, true);
    rules->max_unavailable = read_amount(part, "max_unavailable", rules->exclusive ? 1 : 0, false);
    rules->start_retries = part_count(part, "start_retries", RETRIES_DEFAULT, 0, 1000);
    check_volumes(part);
}

/* --- canary steps --- */

static bool get_number(const json_t *value, unsigned min, unsigned max, unsigned *ret)
{
    json_int_t number = json_integer_value(value);

    *ret = (unsigned)number;
    return json_is_integer(value) && number >= min && number <= max;
}

/* 10, or { percent = 10 }, or { count = 1 }. */
static bool parse_step(const json_t *value, CanaryStep *ret)
{
    const json_t *percent = json_is_object(value) ? json_object_get(value, "percent") : value, *count = json_object_get(value, "count");

    *ret = (CanaryStep){0};
    if (json_is_object(value) && json_object_size(value) != 1)
        return false;
    return percent ? get_number(percent, 1, 100, &ret->percent) : get_number(count, 1, GROUP_SIZE_MAX, &ret->count);
}

static double step_share(const CanaryStep *step, unsigned size)
{
    return step->percent ? step->percent : 100.0 * step->count / MAX(size, 1);
}

static void read_step(const GroupPart *part, const json_t *value, size_t index)
{
    GroupReader *reader = part->reader;
    GroupRules *rules = &reader->spec->rules;
    unsigned size = reader->file->size;
    const CanaryStep *before = index > 0 ? &rules->steps[index - 1] : NULL;
    g_autofree char *place = g_strdup_printf("steps[%zu]", index);
    CanaryStep step;

    if (!parse_step(value, &step)) {
        part_wrong(part, place, "a step is a percentage from 1 to 100, or { count = N } instances");
        step = (CanaryStep){.percent = 100}; /* so that the next one is not blamed for this one */
    } else if (step.count && !reader->file->size_given) {
        part_wrong(part, place, "a step by count needs the group's `size` in this file");
    } else if (step.count > size) {
        part_wrong(part, place, "a step of %u instances is more than the group's size, %u", step.count, size);
    } else if (before && step_share(&step, size) <= step_share(before, size)) {
        part_wrong(part, place, "steps rise, but this one is not above the one before it");
    }
    rules->steps[rules->step_count++] = step;
}

/* The last step is all of them: where it is not written it is added. */
static void read_steps(const GroupPart *part)
{
    GroupRules *rules = &part->reader->spec->rules;
    const json_t *steps = json_object_get(part->object, "steps"), *value;
    size_t index;

    if (steps && (!json_is_array(steps) || json_array_size(steps) >= CANARY_STEPS_MAX)) {
        part_wrong(part, "steps", "'steps' must be a list of less than %d steps, like [10, 50, 100]", CANARY_STEPS_MAX);
        steps = NULL;
    } else if (!steps) {
        part_wrong(part, NULL, "strategy \"canary\" needs steps, like steps = [10, 50, 100]");
    }
    json_array_foreach (steps, index, value)
        read_step(part, value, index);
    if (rules->step_count == 0 || rules->steps[rules->step_count - 1].percent != 100)
        rules->steps[rules->step_count++] = (CanaryStep){.percent = 100};
    if (rules->step_count == 1 && steps)
        part_wrong(part, "steps", "a canary has a step before the one of 100 percent; without one this is strategy \"rolling\"");
}

/* --- analyses --- */

static bool is_comparison(const AnalysisSpec *spec)
{
    return spec->kind != ANALYSIS_COMMAND;
}

static void read_balancer_analysis(const GroupPart *part)
{
    static const char *const known[] = {"interval", "samples", "allowed_increase", "confidence", "tolerance", "pass_score", "marginal_score", NULL};
    const GroupReader *reader = part->reader;

    part_only(part, known);
    if (reader->balancer && !reader->balancer->counters)
        part_wrong(part, NULL, "balancer \"%s\" counts nothing that could be judged", reader->balancer->name);
    else if (strcmp(reader->spec->balancer, "none") == 0)
        part_wrong(part, NULL, "this group has no balancer whose counters could be judged");
}

static void read_prometheus(const GroupPart *part, AnalysisSpec *spec)
{
    static const char *const known[] = {"url", "query_canary", "query_baseline", "interval", "samples", "allowed_increase", "confidence", "tolerance",
                                        "pass_score", "marginal_score", NULL};
    static const char *const needed[] = {"url", "query_canary", "query_baseline"};

    part_only(part, known);
    spec->url = g_strdup(part_string(part, "url", NULL));
    spec->query_canary = g_strdup(part_string(part, "query_canary", NULL));
    spec->query_baseline = g_strdup(part_string(part, "query_baseline", NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(needed); i++)
        if (!part_has(part, needed[i]))
            part_wrong(part, NULL, "%s needs '%s'", part->name, needed[i]);
    if (spec->url && !((g_str_has_prefix(spec->url, "http://") || g_str_has_prefix(spec->url, "https://")) && group_text_is_plain(spec->url, 2000) &&
                       !strpbrk(spec->url, " ?#")))
        part_wrong(part, "url", "'url' must be the server's, like \"http://127.0.0.1:9090\", without a query");
}

static void read_command(const GroupPart *part, AnalysisSpec *spec)
{
    static const char *const known[] = {"command", "interval", "samples", NULL};

    part_only(part, known);
    spec->command = part_strings(part, "command");
    if (!part_has(part, "command"))
        part_wrong(part, NULL, "%s needs 'command', the program and its arguments as a list", part->name);
    else if (spec->command && (!spec->command[0] || g_strv_length(spec->command) > COMMAND_MAX))
        part_wrong(part, "command", "'command' must be a list of the program and its arguments, at most %d", COMMAND_MAX);
}

static void read_judge(const GroupPart *part, AnalysisSpec *spec)
{
    bool comparison = is_comparison(spec);

    spec->interval = part_duration(part, "interval", comparison ? 5 : 30, 0.1, 86400);
    spec->samples = part_count(part, "samples", comparison ? SAMPLES_DEFAULT : 1, comparison ? SAMPLES_MIN : 1, SAMPLES_MAX);
    spec->allowed_increase = part_number(part, "allowed_increase", 1, 1, 1000);
    spec->confidence = part_number(part, "confidence", 0.98, 0.5, 0.9999);
    spec->tolerance = part_number(part, "tolerance", 0.25, 0, 1);
    spec->pass_score = part_number(part, "pass_score", 95, 0, 100);
    spec->marginal_score = part_number(part, "marginal_score", MIN(75, spec->pass_score), 0, 100);
    if (spec->marginal_score > spec->pass_score)
        part_wrong(part, "marginal_score", "marginal_score, at or below which a step fails, is above pass_score");
}

static void read_analysis(const GroupPart *part)
{
    static const char *const kinds[] = {[ANALYSIS_BALANCER] = "balancer", [ANALYSIS_PROMETHEUS] = "prometheus", [ANALYSIS_COMMAND] = "command", NULL};
    AnalysisSpec *spec;
    unsigned kind = 0;

    while (kinds[kind] && strcmp(kinds[kind], part->label) != 0)
        kind++;
    if (!kinds[kind]) {
        const char *near = units_nearest(part->label, kinds);

        part_wrong(part, NULL, "an analysis is \"balancer\", \"prometheus\" or \"command\", not \"%.32s\"%s%s%s", part->label, near ? "; did you mean '" : "",
                   near ? near : "", near ? "'?" : "");
        return;
    }
    spec = g_new0(AnalysisSpec, 1);
    spec->kind = kind;
    g_ptr_array_add(part->reader->spec->analyses, spec);
    if (kind == ANALYSIS_BALANCER)
        read_balancer_analysis(part);
    else if (kind == ANALYSIS_PROMETHEUS)
        read_prometheus(part, spec);
    else
        read_command(part, spec);
    read_judge(part, spec);
}

static void read_analyses(const GroupPart *part)
{
    size_t count = part_blocks(part, "analysis", true);
    GroupPart one;

    if (count > GROUP_ANALYSES_MAX)
        part_wrong(part, "analysis", "a strategy has at most %d analyses", GROUP_ANALYSES_MAX);
    for (size_t i = 0; i < MIN(count, (size_t)GROUP_ANALYSES_MAX); i++) {
        part_block_at(part, "analysis", i, &one);
        read_analysis(&one);
    }
}

/* --- canary --- */

static bool has_comparison(const GroupSpec *spec)
{
    for (guint i = 0; i < spec->analyses->len; i++)
        if (is_comparison(spec->analyses->pdata[i]))
            return true;
    return false;
}

/* A judged canary is compared with as many others: past a half there are none left that serve alike. */
static void check_halves(const GroupPart *part)
{
    const GroupReader *reader = part->reader;
    const GroupRules *rules = &reader->spec->rules;

    for (unsigned i = 0; i + 1 < rules->step_count; i++) {
        g_autofree char *place = g_strdup_printf("steps[%u]", i);

        if (step_share(&rules->steps[i], reader->file->size) > 50)
            part_wrong(part, place, "a step that is compared with a baseline is at most 50 percent; only the last one, which is not judged, is above");
    }
}

/* The baseline stands above the group's size, as many as the largest judged step has canaries. */
static void fit_baseline(const GroupPart *part)
{
    GroupReader *reader = part->reader;
    GroupRules *rules = &reader->spec->rules;
    unsigned needed = 1;

    for (unsigned i = 0; i + 1 < rules->step_count; i++)
        needed = MAX(needed, group_step_count(&rules->steps[i], reader->file->size));
    if (rules->exclusive)
        part_wrong(part, NULL, "a group with volumes has no baseline, as nothing may be added to it: judge it by analysis \"command\" with baseline = false");
    else if (!reader->surge_given)
        rules->max_surge = needed;
    else if (rules->max_surge < needed)
        part_wrong(part, "max_surge", "the largest judged step has %u canaries and needs as many baseline instances above the size: max_surge = %u at least",
                   needed, needed);
}

static void read_canary(const GroupPart *part)
{
    GroupSpec *spec = part->reader->spec;
    GroupRules *rules = &spec->rules;
    bool comparison;

    read_steps(part);
    read_analyses(part);
    spec->canary_hold = part_duration(part, "hold", 300, 0, GROUP_DURATION_MAX);
    spec->sticky = part_bool(part, "sticky", false);
    if (spec->sticky && strcmp(spec->balancer, "none") == 0)
        part_wrong(part, "sticky", "this group has no balancer that could keep clients with their instance");
    comparison = has_comparison(spec);
    rules->analysis = spec->analyses->len > 0;
    rules->baseline = part_bool(part, "baseline", comparison);
    if (comparison && !rules->baseline)
        part_wrong(part, "baseline", "an analysis of balancer counters or of Prometheus compares canaries with a baseline");
    if (rules->baseline && !rules->analysis)
        part_wrong(part, "baseline", "a baseline is there to be compared with, but this strategy has no analysis");
    if (comparison)
        check_halves(part);
    if (rules->baseline)
        fit_baseline(part);
}

/* --- the block --- */

static Strategy strategy_of(const GroupPart *part)
{
    const char *near;

    for (unsigned i = 0; part->label && strategy_names[i]; i++)
        if (strcmp(strategy_names[i], part->label) == 0)
            return i;
    if (!part->label)
        return STRATEGY_ROLLING;
    near = units_nearest(part->label, strategy_names);
    part_wrong(part, NULL, "a strategy is \"rolling\", \"bluegreen\" or \"canary\", not \"%.32s\"%s%s%s", part->label, near ? "; did you mean '" : "",
               near ? near : "", near ? "'?" : "");
    return STRATEGY_ROLLING;
}

static void check_bluegreen(const GroupPart *part)
{
    const GroupReader *reader = part->reader;

    if (reader->balancer ? !reader->balancer->switch_color : strcmp(reader->spec->balancer, "none") == 0)
        part_wrong(part, NULL, "blue/green needs a balancer that can switch all traffic at once, and \"%s\" can not", reader->spec->balancer);
}

void group_read_strategy(const GroupPart *group)
{
    static const char *const gates[] = {"none", "manual", NULL};
    GroupRules *rules = &group->reader->spec->rules;
    unsigned before = group->reader->count;
    GroupPart part;

    part_block(group, "strategy", true, &part);
    rules->strategy = strategy_of(&part);
    part_only(&part, before == group->reader->count ? strategy_arguments[rules->strategy] : canary_arguments);
    rules->exclusive = group->reader->spec->shape.volumes->len > 0;
    rules->weighted = group->reader->balancer && group->reader->balancer->weighs;
    read_amounts(&part);
    if (rules->strategy != STRATEGY_ROLLING)
        rules->gate = part_word(&part, "gate", gates, 0) == 1;
    if (rules->strategy == STRATEGY_CANARY)
        read_canary(&part);
    if (rules->strategy == STRATEGY_BLUEGREEN)
        check_bluegreen(&part);
    check_amounts(&part);
}
