/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time: timestamp, timeadd, formatdate, and times in parts. A time is RFC 3339 text.
 *
 * timestamp() is SOURCE_DATE_EPOCH where that is set, and otherwise one moment for the whole run: two
 * places of a template never disagree about "now".
 */
#include "templates/language/functions.h"

#include "base/gotemplate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static GDateTime *now(void)
{
    static gint64 first;
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    gint64 seconds;

    if (epoch && g_ascii_string_to_signed(epoch, 10, 0, G_GINT64_CONSTANT(253402300799), &seconds, NULL))
        return g_date_time_new_from_unix_utc(seconds);
    if (first == 0)
        first = g_get_real_time() / G_USEC_PER_SEC;
    return g_date_time_new_from_unix_utc(first);
}

static char *rfc3339(GDateTime *time)
{
    gint64 offset = g_date_time_get_utc_offset(time) / G_USEC_PER_SEC;
    g_autofree char *text = g_date_time_format(time, "%Y-%m-%dT%H:%M:%S");

    if (offset == 0)
        return g_strconcat(text, "Z", NULL);
    return g_strdup_printf("%s%c%02d:%02d", text, offset < 0 ? '-' : '+', (int)(ABS(offset) / 3600),
                           (int)(ABS(offset) / 60 % 60));
}

static Value *time_value(Call *call, GDateTime *time)
{
    g_autofree char *text = rfc3339(time);

    return value_string(call->arena, text);
}

/* RFC 3339 only; GLib would also take week dates and lone days. */
static GDateTime *parse_time(Call *call, size_t arg)
{
    const char *text = call->args[arg]->string;
    GDateTime *time = NULL;

    if (g_regex_match_simple("^\\d{4}-\\d\\d-\\d\\d[Tt ]\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?([Zz]|[+-]\\d\\d:\\d\\d)$", text, 0, 0))
        time = g_date_time_new_from_iso8601(text, NULL);
    if (!time)
        (void)call_fail(call, (int)arg, "'%s' is no time like 2024-05-01T12:30:00Z", text);
    return time;
}

static Value *fn_timestamp(Call *call)
{
    g_autoptr(GDateTime) time = now();

    return time_value(call, time);
}

/* Go's durations: 1h30m, -90s, 1.5h. */
static bool parse_duration(const char *text, double *ret_seconds)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = { { "ns", 1e-9 }, { "us", 1e-6 }, { "\u00b5s", 1e-6 }, { "ms", 1e-3 }, { "s", 1 }, { "m", 60 }, { "h", 3600 } };
    bool negative = *text == '-';
    double total = 0;

    if (*text == '-' || *text == '+')
        text++;
    if (*text == '\0')
        return false;
    while (*text) {
        char *end;
        double number;
        bool found = false;

        if (!g_ascii_isdigit(*text) && *text != '.')
            return false;
        number = g_ascii_strtod(text, &end);
        if (strspn(text, "0123456789.") != (size_t)(end - text))
            return false;
        text = end;
        for (size_t i = 0; i < G_N_ELEMENTS(units) && !found; i++) {
            size_t length = strlen(units[i].name);

            found = strncmp(text, units[i].name, length) == 0 && (!text[length] || g_ascii_isdigit(text[length]) || text[length] == '.');
            if (found) {
                total += number * units[i].seconds;
                text += length;
            }
        }
        if (!found && !(*text == '\0' && number == 0))
            return false;
    }
    *ret_seconds = negative ? -total : total;
    return true;
}

static Value *fn_timeadd(Call *call)
{
    g_autoptr(GDateTime) time = parse_time(call, 0);
    g_autoptr(GDateTime) sum = NULL;
    double seconds;

    if (!time)
        return NULL;
    if (!parse_duration(call->args[1]->string, &seconds))
        return call_fail(call, 1, "'%s' is no duration like 1h30m", call->args[1]->string);
    if (fabs(seconds) < 1e11)
        sum = g_date_time_add(time, (GTimeSpan)(seconds * G_USEC_PER_SEC));
    return sum ? time_value(call, sum) : call_fail(call, 1, "this leads out of the years 1 to 9999");
}

/* --- formatdate --- */

static bool append_zone(GString *out, GDateTime *time, int count)
{
    gint64 offset = g_date_time_get_utc_offset(time) / G_USEC_PER_SEC;
    char sign = offset < 0 ? '-' : '+';
    int hours = (int)(ABS(offset) / 3600), minutes = (int)(ABS(offset) / 60 % 60);

    if (count == 1 && offset == 0)
        g_string_append_c(out, 'Z');
    else if (count == 3 && offset == 0)
        g_string_append(out, "UTC");
    else if (count == 1 || count == 5)
        g_string_append_printf(out, "%c%02d:%02d", sign, hours, minutes);
    else if (count == 3 || count == 4)
        g_string_append_printf(out, "%c%02d%02d", sign, hours, minutes);
    else
        return false;
    return true;
}

static void append_name(GString *out, GDateTime *time, bool month, bool whole)
{
    static const char *const months[] = { "January", "February", "March",     "April",   "May",      "June",
                                          "July",    "August",   "September", "October", "November", "December" };
    static const char *const days[] = { "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday" };
    const char *name = month ? months[g_date_time_get_month(time) - 1] : days[g_date_time_get_day_of_week(time) - 1];

    g_string_append_len(out, name, whole ? (gssize)strlen(name) : 3);
}

static void append_number(GString *out, int number, int count)
{
    g_string_append_printf(out, count == 2 ? "%02d" : "%d", number);
}

static bool append_date(GString *out, GDateTime *time, char letter, int count)
{
    int hour = g_date_time_get_hour(time);

    if (letter == 'Y' && (count == 2 || count == 4)) {
        g_string_append_printf(out, "%0*d", count, count == 2 ? g_date_time_get_year(time) % 100 : g_date_time_get_year(time));
        return true;
    }
    if (letter == 'Z')
        return append_zone(out, time, count);
    if ((letter == 'M' || letter == 'E') && (count == 3 || count == 4)) {
        append_name(out, time, letter == 'M', count == 4);
        return true;
    }
    if (letter == 'A' || letter == 'a') {
        g_string_append(out, letter == 'A' ? (hour < 12 ? "AM" : "PM") : (hour < 12 ? "am" : "pm"));
        return count == 2;
    }
    if (count > 2)
        return false;
    switch (letter) {
    case 'M':
        append_number(out, g_date_time_get_month(time), count);
        return true;
    case 'D':
        append_number(out, g_date_time_get_day_of_month(time), count);
        return true;
    case 'h':
        append_number(out, hour, count);
        return true;
    case 'H':
        append_number(out, hour % 12 ? hour % 12 : 12, count);
        return true;
    case 'm':
        append_number(out, g_date_time_get_minute(time), count);
        return true;
    case 's':
        append_number(out, g_date_time_get_second(time), count);
        return true;
    }
    return false;
}

/* Runs of one letter are fields, '...' is text with '' for a quote, other characters stand for themselves. */
static Value *fn_formatdate(Call *call)
{
    g_autoptr(GDateTime) time = parse_time(call, 1);
    g_autoptr(GString) out = g_string_new(NULL);
    const char *p = call->args[0]->string;

    if (!time)
        return NULL;
    while (*p) {
        int count = 1;

        if (*p == '\'') {
            for (p++; *p && (*p != '\'' || p[1] == '\''); p++) {
                g_string_append_c(out, *p);
                p += *p == '\'';
            }
            if (!*p++)
                return call_fail(call, 0, "a quoted part of the format is not closed");
            continue;
        }
        if (!g_ascii_isalpha(*p)) {
            g_string_append_c(out, *p++);
            continue;
        }
        while (p[count] == *p)
            count++;
        if (!append_date(out, time, *p, count))
            return call_fail(call, 0, "'%.*s' is no field of a date; text stands in single quotes", count, p);
        p += count;
    }
    return value_string(call->arena, out->str);
}

/* --- a time in its parts --- */

static Value *time_parts(Call *call, GDateTime *time, bool from_unix)
{
    static const char *const months[] = { "January", "February", "March",     "April",   "May",      "June",
                                          "July",    "August",   "September", "October", "November", "December" };
    static const char *const days[] = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" };
    int weekday = g_date_time_get_day_of_week(time) % 7, month = g_date_time_get_month(time);
    const struct {
        const char *name;
        int64_t number;
    } numbers[] = {
        { "year", g_date_time_get_year(time) },         { "year_day", g_date_time_get_day_of_year(time) },
        { "day", g_date_time_get_day_of_month(time) },  { "month", month },
        { "weekday", weekday },                         { "hour", g_date_time_get_hour(time) },
        { "minute", g_date_time_get_minute(time) },     { "second", g_date_time_get_second(time) },
        { "iso_year", g_date_time_get_week_numbering_year(time) }, { "iso_week", g_date_time_get_week_of_year(time) },
    };
    ValueFields fields;

    value_fields_init(&fields);
    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
        value_fields_put(&fields, numbers[i].name, value_int(call->arena, numbers[i].number));
    value_fields_put(&fields, "month_name", value_string(call->arena, months[month - 1]));
    value_fields_put(&fields, "weekday_name", value_string(call->arena, days[weekday]));
    if (from_unix)
        value_fields_put(&fields, "rfc3339", time_value(call, time));
    else
        value_fields_put(&fields, "unix", value_int(call->arena, g_date_time_to_unix(time)));
    return value_fields_object(&fields, call->arena);
}

static Value *fn_rfc3339_parse(Call *call)
{
    g_autoptr(GDateTime) time = parse_time(call, 0);

    return time ? time_parts(call, time, false) : NULL;
}

static Value *fn_unix_timestamp_parse(Call *call)
{
    g_autoptr(GDateTime) time = NULL;
    int64_t seconds;

    if (!call_int(call, 0, -62135596800, 253402300799, &seconds))
        return NULL;
    time = g_date_time_new_from_unix_utc(seconds);
    return time ? time_parts(call, time, true) : call_fail(call, 0, "this leads out of the years 1 to 9999");
}

/* --- as old templates wrote times --- */

/* The layout is an example, as in Go: 2006-01-02 15:04:05. */
static Value *fn_legacy_isotime(Call *call)
{
    const char *layout = call->n > 0 ? call->args[0]->string : "2006-01-02T15:04:05Z07:00";
    g_autoptr(GHashTable) values = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GDateTime) time = now();
    g_autofree char *stamp = g_strdup_printf("%" G_GINT64_FORMAT, g_date_time_to_unix(time));
    g_autofree char *text = g_strdup_printf("{{ isotime `%s` }}", layout), *result = NULL;
    g_autoptr(GError) error = NULL;

    if (strchr(layout, '`'))
        return call_fail(call, 0, "a layout holds no '`'");
    g_hash_table_insert(values, (gpointer) "timestamp", stamp);
    if (!gotemplate_expand(text, values, &result, &error))
        return call_fail(call, -1, "%s", error->message);
    return value_string(call->arena, result);
}

static Value *fn_legacy_strftime(Call *call)
{
    g_autoptr(GDateTime) time = now();
    g_autofree char *text = g_date_time_format(time, call->n > 0 ? call->args[0]->string : "%Y-%m-%dT%H:%M:%SZ");

    return text ? value_string(call->arena, text) : call_fail(call, 0, "this is no format of strftime");
}

const Function functions_time[] = {
    { "formatdate", "ss", fn_formatdate, 0 },
    { "legacy_isotime", "|s", fn_legacy_isotime, 0 },
    { "legacy_strftime", "|s", fn_legacy_strftime, 0 },
    { "rfc3339_parse", "s", fn_rfc3339_parse, 0 },
    { "timeadd", "ss", fn_timeadd, 0 },
    { "timestamp", "", fn_timestamp, 0 },
    { "unix_timestamp_parse", "n", fn_unix_timestamp_parse, 0 },
    { 0 },
};
