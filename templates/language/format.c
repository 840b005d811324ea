/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formatting. The text becomes tokens, the tokens lines, and a line has up to three cells:
 *
 *     lead          assign        comment
 *     name          = "value"     # why
 *     longer_name   = 5           # because
 *
 * 1. indentation: two blanks for each line that left brackets open
 * 2. blanks between the tokens of a cell, by what stands on both sides
 * 3. the assign and comment cells of neighbouring lines are put under each other
 *
 * The lexer of the parser does not keep comments and leaves templates to the parser, so this file cuts the text by
 * itself: a stack of modes says whether code, a quoted template or a heredoc is being read.
 */
#include "templates/language/format.h"

#include "templates/language/lexer.h"

#include <string.h>

typedef enum Kind {
    NOTHING, /* before the first and after the last token of a cell */
    NEWLINE,
    COMMENT,
    IDENT,
    NUMBER,
    OPEN_QUOTE,
    CLOSE_QUOTE,
    OPEN_HEREDOC,
    CLOSE_HEREDOC,
    LITERAL,       /* text of a template */
    OPEN_SEQUENCE, /* ${ or %{, perhaps with ~ */
    CLOSE_SEQUENCE,
    OPERATOR,      /* the first byte of the text tells more; `length` too */
} Kind;

typedef struct Piece {
    Kind kind;
    uint32_t start, length;
    uint32_t spaces; /* before it */
} Piece;

typedef struct Mode {
    enum { CODE, QUOTED, HEREDOC } what;
    unsigned braces;    /* CODE: open ones, so that the '}' of a sequence is known */
    uint32_t marker, marker_length;
    bool line_start;    /* HEREDOC: only there can the marker stand */
} Mode;

typedef struct Cutter {
    const char *text;
    size_t size, at, end_of_last;
    GArray *pieces; /* of Piece */
    GArray *modes;  /* of Mode */
} Cutter;

typedef struct Line {
    Piece *lead, *assign, *comment;
    size_t n_lead, n_assign, n_comment;
} Line;

static Mode *mode_of(const Cutter *c)
{
    return &g_array_index(c->modes, Mode, c->modes->len - 1);
}

static void push_mode(Cutter *c, Mode mode)
{
    g_array_append_val(c->modes, mode);
}

static void pop_mode(Cutter *c)
{
    if (c->modes->len > 1)
        g_array_set_size(c->modes, c->modes->len - 1);
}

static void add_piece(Cutter *c, Kind kind, size_t length)
{
    Piece piece = { kind, (uint32_t)c->at, (uint32_t)length, (uint32_t)(c->at - c->end_of_last) };

    g_array_append_val(c->pieces, piece);
    c->at += length;
    c->end_of_last = c->at;
}

/* --- code --- */

static size_t comment_length(const char *p)
{
    const char *end;

    if (*p != '#' && p[1] == '*')
        return (end = strstr(p + 2, "*/")) ? (size_t)(end + 2 - p) : strlen(p);
    end = strchrnul(p, '\n');
    return (size_t)(end - p) + (*end == '\n');
}

static size_t number_length(const char *p)
{
    size_t n = strspn(p, "0123456789");
    size_t mark;

    if (p[n] == '.' && g_ascii_isdigit(p[n + 1]))
        n += 1 + strspn(p + n + 1, "0123456789");
    mark = n;
    if (p[n] == 'e' || p[n] == 'E') {
        n++;
        n += p[n] == '+' || p[n] == '-';
        if (!g_ascii_isdigit(p[n]))
            return mark;
        n += strspn(p + n, "0123456789");
    }
    return n;
}

static size_t heredoc_length(const char *p, uint32_t *ret_marker, uint32_t *ret_length)
{
    size_t start, end;

    if (p[0] != '<' || p[1] != '<')
        return 0;
    start = end = p[2] == '-' ? 3 : 2;
    if (!lex_is_ident_start(g_utf8_get_char(p + start)))
        return 0;
    end += lex_ident_length(p + start);
    *ret_marker = (uint32_t)start;
    *ret_length = (uint32_t)(end - start);
    end += p[end] == '\r';
    return p[end] == '\n' ? end + 1 : 0;
}

static size_t operator_length(const char *p)
{
    static const char *const longer[] = { "...", "==", "!=", "<=", ">=", "&&", "||", "=>", "::" };

    if (*p == '[' || *p == ']' || *p == '(' || *p == ')' || *p == ',') /* nearly all */
        return 1;
    for (size_t i = 0; i < G_N_ELEMENTS(longer); i++)
        if (g_str_has_prefix(p, longer[i]))
            return strlen(longer[i]);
    return (size_t)(g_utf8_next_char(p) - p);
}

/* A brace, or the end of the sequence that this code stands in. */
static void cut_brace(Cutter *c, const char *p)
{
    Mode *mode = mode_of(c);

    if (c->modes->len > 1 && mode->braces == 0 && (*p == '}' || (p[0] == '~' && p[1] == '}'))) {
        pop_mode(c);
        add_piece(c, CLOSE_SEQUENCE, *p == '~' ? 2 : 1);
        return;
    }
    if (*p == '{')
        mode->braces++;
    else if (*p == '}' && mode->braces > 0)
        mode->braces--;
    add_piece(c, OPERATOR, 1);
}

static void cut_code(Cutter *c)
{
    const char *p = c->text + c->at;
    uint32_t marker = 0, marker_length = 0;
    size_t heredoc;

    if (*p == ' ' || *p == '\t')
        c->at++;
    else if (*p == '\n' || (*p == '\r' && p[1] == '\n'))
        add_piece(c, NEWLINE, *p == '\r' ? 2 : 1);
    else if (*p == '#' || (*p == '/' && (p[1] == '/' || p[1] == '*')))
        add_piece(c, COMMENT, comment_length(p));
    else if (g_ascii_isdigit(*p))
        add_piece(c, NUMBER, number_length(p));
    else if (lex_is_ident_start(g_utf8_get_char(p)))
        add_piece(c, IDENT, lex_ident_length(p));
    else if (*p == '"') {
        add_piece(c, OPEN_QUOTE, 1);
        push_mode(c, (Mode){ .what = QUOTED });
    } else if ((heredoc = heredoc_length(p, &marker, &marker_length)) > 0) {
        Mode mode = { .what = HEREDOC, .marker = (uint32_t)c->at + marker, .marker_length = marker_length, .line_start = true };

        add_piece(c, OPEN_HEREDOC, heredoc);
        push_mode(c, mode);
    } else if (*p == '{' || *p == '}' || (*p == '~' && p[1] == '}')) {
        cut_brace(c, p);
    } else {
        add_piece(c, OPERATOR, operator_length(p));
    }
}

/* --- templates --- */

static bool at_sequence(const char *p)
{
    return (*p == '$' || *p == '%') && p[1] == '{';
}

static bool cut_sequence(Cutter *c)
{
    const char *p = c->text + c->at;

    if (!at_sequence(p))
        return false;
    add_piece(c, OPEN_SEQUENCE, p[2] == '~' ? 3 : 2);
    push_mode(c, (Mode){ .what = CODE });
    return true;
}

/* Text up to a sequence, and no further than what @stops (a quote, or the end of a line of a heredoc). */
static size_t literal_length(const char *p, bool quoted)
{
    const char *start = p;

    while (*p) {
        if ((p[0] == '$' || p[0] == '%') && p[1] == p[0] && p[2] == '{') {
            p += 3;
        } else if (at_sequence(p) || (quoted && *p == '"')) {
            break;
        } else if (!quoted && *p == '\n') {
            return (size_t)(p + 1 - start);
        } else {
            p += quoted && *p == '\\' && p[1] ? 2 : 1;
        }
    }
    return (size_t)(p - start);
}

static void cut_quoted(Cutter *c)
{
    if (c->text[c->at] == '"') {
        pop_mode(c);
        add_piece(c, CLOSE_QUOTE, 1);
    } else if (!cut_sequence(c)) {
        add_piece(c, LITERAL, literal_length(c->text + c->at, true));
    }
}

/* The closing word with the blanks before it is one token: its indentation says nothing to the indentation here. */
static size_t closing_length(const Cutter *c, const Mode *mode)
{
    const char *p = c->text + c->at;
    size_t blanks = strspn(p, " \t");
    const char *end = p + blanks + mode->marker_length;

    if (strncmp(p + blanks, c->text + mode->marker, mode->marker_length) != 0)
        return 0;
    return strspn(end, " \t\r") == strcspn(end, "\n") ? (size_t)(end - p) : 0;
}

static void cut_heredoc(Cutter *c)
{
    Mode *mode = mode_of(c);
    size_t closing = mode->line_start ? closing_length(c, mode) : 0;

    if (closing > 0) {
        pop_mode(c);
        add_piece(c, CLOSE_HEREDOC, closing);
        return;
    }
    mode->line_start = false;
    if (!cut_sequence(c)) {
        size_t length = literal_length(c->text + c->at, false);

        mode->line_start = c->text[c->at + length - 1] == '\n';
        add_piece(c, LITERAL, length);
    }
}

static void cut(Cutter *c)
{
    push_mode(c, (Mode){ .what = CODE });
    while (c->at < c->size)
        switch (mode_of(c)->what) {
        case CODE:
            cut_code(c);
            break;
        case QUOTED:
            cut_quoted(c);
            break;
        case HEREDOC:
            cut_heredoc(c);
            break;
        }
}

/* --- lines --- */

static inline bool is_op(const Cutter *c, const Piece *piece, const char *op)
{
    const char *text = c->text + piece->start;

    return piece->kind == OPERATOR && *text == *op && piece->length == strlen(op) && memcmp(text, op, piece->length) == 0;
}

static bool is_one_of(const Cutter *c, const Piece *piece, const char *ops)
{
    return piece->kind == OPERATOR && piece->length == 1 && strchr(ops, c->text[piece->start]);
}

static int opens(const Cutter *c, const Piece *piece)
{
    if (piece->kind == OPEN_SEQUENCE || piece->kind == CLOSE_SEQUENCE)
        return piece->kind == OPEN_SEQUENCE ? 1 : -1;
    if (piece->kind != OPERATOR || piece->length != 1)
        return 0;
    switch (c->text[piece->start]) {
    case '(':
    case '[':
    case '{':
        return 1;
    case ')':
    case ']':
    case '}':
        return -1;
    }
    return 0;
}

static bool ends_line(const Cutter *c, const Piece *piece)
{
    return piece->kind == NEWLINE || (piece->kind == COMMENT && c->text[piece->start + piece->length - 1] == '\n');
}

static void split_cells(const Cutter *c, Line *line)
{
    if (line->n_lead > 1 && line->lead[line->n_lead - 1].kind == COMMENT) {
        line->comment = &line->lead[--line->n_lead];
        line->n_comment = 1;
    }
    for (size_t i = 1; i < line->n_lead; i++) {
        int net = 0;

        if (!is_op(c, &line->lead[i], "="))
            continue;
        for (size_t j = i; j < line->n_lead; j++)
            net += opens(c, &line->lead[j]);
        if (net == 0) { /* otherwise a value of several lines begins, which is not aligned */
            line->assign = &line->lead[i];
            line->n_assign = line->n_lead - i;
            line->n_lead = i;
        }
        return;
    }
}

static GArray *collect_lines(const Cutter *c)
{
    GArray *lines = g_array_new(FALSE, TRUE, sizeof(Line));
    Piece *pieces = (Piece *)(void *)c->pieces->data;
    size_t start = 0;

    for (size_t i = 0; i < c->pieces->len; i++) {
        Line line = { 0 };

        if (!ends_line(c, &pieces[i]) && i + 1 < c->pieces->len)
            continue;
        line.lead = &pieces[start];
        line.n_lead = i + 1 - start;
        split_cells(c, &line);
        g_array_append_val(lines, line);
        start = i + 1;
    }
    return lines;
}

/* --- indentation --- */

static int net_brackets(const Cutter *c, const Line *line)
{
    int net = 0;

    for (size_t i = 0; i < line->n_lead; i++) {
        net += opens(c, &line->lead[i]);
        if (line->lead[i].kind == OPEN_HEREDOC)
            break;
    }
    for (size_t i = 0; i < line->n_assign; i++) {
        net += opens(c, &line->assign[i]);
        if (line->assign[i].kind == OPEN_HEREDOC)
            break;
    }
    return net;
}

static bool has_kind(const Piece *pieces, size_t n, Kind kind)
{
    for (size_t i = 0; i < n; i++)
        if (pieces[i].kind == kind)
            return true;
    return false;
}

/* Takes @closed brackets from the levels that opened them; a level goes when its last bracket does. */
static void close_levels(GArray *levels, int closed)
{
    while (closed > 0 && levels->len > 0) {
        int *last = &g_array_index(levels, int, levels->len - 1);

        if (closed < *last) {
            *last -= closed;
            return;
        }
        closed -= *last;
        g_array_set_size(levels, levels->len - 1);
    }
}

static void indent(const Cutter *c, GArray *lines)
{
    g_autoptr(GArray) levels = g_array_new(FALSE, FALSE, sizeof(int));
    bool in_heredoc = false;

    for (guint i = 0; i < lines->len; i++) {
        Line *line = &g_array_index(lines, Line, i);
        int net;

        if (in_heredoc) { /* a sequence over several lines in it keeps its own layout */
            in_heredoc = !has_kind(line->lead, line->n_lead, CLOSE_HEREDOC);
            continue;
        }
        if (line->lead[0].kind == NEWLINE) {
            line->lead[0].spaces = 0;
            continue;
        }
        net = net_brackets(c, line);
        in_heredoc = has_kind(line->assign, line->n_assign, OPEN_HEREDOC) &&
                     !has_kind(line->assign, line->n_assign, CLOSE_HEREDOC);
        if (net < 0)
            close_levels(levels, -net);
        line->lead[0].spaces = 2 * levels->len;
        if (net > 0)
            g_array_append_val(levels, net);
    }
}

/* --- blanks between tokens --- */

static bool is_template_text(const Piece *piece)
{
    return piece->kind == LITERAL;
}

/* A minus after the end of an operand subtracts, any other negates. */
static bool minus_subtracts(const Cutter *c, const Piece *before)
{
    if (before->kind == NOTHING || is_one_of(c, before, "({[=:,?+*/%-><!"))
        return false;
    return !is_op(c, before, "==") && !is_op(c, before, "!=") && !is_op(c, before, ">=") && !is_op(c, before, "<=") &&
           !is_op(c, before, "&&") && !is_op(c, before, "||");
}

static bool is_in(const Cutter *c, const Piece *piece)
{
    return piece->kind == IDENT && piece->length == 2 && memcmp(c->text + piece->start, "in", 2) == 0;
}

/* The first rule that speaks decides; their order is part of the format. */
static bool blank_between(const Cutter *c, const Piece *before, const Piece *left, const Piece *right)
{
    if (right->kind == NEWLINE || right->kind == NOTHING)
        return false;
    if (left->kind == IDENT && (is_op(c, right, "(") || is_op(c, right, "::")))
        return false;
    if (is_op(c, left, "::") && right->kind == IDENT)
        return false;
    if (is_op(c, left, ".") || is_op(c, right, ".") || is_op(c, right, ",") || is_op(c, right, "..."))
        return false;
    if (is_op(c, left, ","))
        return true;
    if (is_template_text(left) || left->kind == OPEN_QUOTE || left->kind == OPEN_HEREDOC || is_template_text(right) ||
        right->kind == CLOSE_QUOTE || right->kind == CLOSE_HEREDOC)
        return false;
    if (is_in(c, left) && before->kind == IDENT)
        return true; /* [for x in [a] : x], not in[a] */
    if (is_op(c, right, "[") && (left->kind == IDENT || left->kind == NUMBER || opens(c, left) < 0))
        return false;
    if (is_op(c, left, "!"))
        return false;
    if (is_op(c, left, "-"))
        return minus_subtracts(c, before);
    if (is_op(c, left, "{") || is_op(c, right, "}"))
        return !(is_op(c, left, "{") && is_op(c, right, "}"));
    if (left->kind == OPEN_SEQUENCE && is_op(c, right, "{"))
        return true;
    if (is_op(c, left, "}") && right->kind == CLOSE_SEQUENCE)
        return true;
    if (left->kind == CLOSE_SEQUENCE && right->kind == OPEN_SEQUENCE)
        return false;
    return opens(c, left) <= 0 && opens(c, right) >= 0;
}

static void space_cell(const Cutter *c, Piece *pieces, size_t n)
{
    static const Piece nothing = { NOTHING, 0, 0, 0 };

    for (size_t i = 0; i + 1 < n; i++)
        pieces[i + 1].spaces = blank_between(c, i > 0 ? &pieces[i - 1] : &nothing, &pieces[i], &pieces[i + 1]);
}

static void space(const Cutter *c, GArray *lines)
{
    for (guint i = 0; i < lines->len; i++) {
        Line *line = &g_array_index(lines, Line, i);

        space_cell(c, line->lead, line->n_lead);
        space_cell(c, line->assign, line->n_assign);
        if (line->n_assign > 0)
            line->assign[0].spaces = 1;
    }
}

/* --- cells under each other --- */

static size_t columns(const Cutter *c, const Piece *pieces, size_t n)
{
    size_t width = 0;

    for (size_t i = 0; i < n; i++)
        width += pieces[i].spaces + text_columns(c->text + pieces[i].start, pieces[i].length);
    return width;
}

typedef size_t WidthFn(const Cutter *c, const Line *line);

static size_t lead_width(const Cutter *c, const Line *line)
{
    return columns(c, line->lead, line->n_lead);
}

static size_t whole_width(const Cutter *c, const Line *line)
{
    return lead_width(c, line) + columns(c, line->assign, line->n_assign);
}

/* Neighbouring lines that all have the cell (of its first piece, by @comments) get it at one column. */
static void align(const Cutter *c, GArray *lines, bool comments, WidthFn *width)
{
    for (guint i = 0; i < lines->len;) {
        guint end = i;
        size_t most = 0;

        for (; end < lines->len; end++) {
            const Line *line = &g_array_index(lines, Line, end);

            if (comments ? !line->comment : !line->assign)
                break;
            most = MAX(most, width(c, line));
        }
        for (guint j = i; j < end; j++) {
            Line *line = &g_array_index(lines, Line, j);

            (comments ? line->comment : line->assign)->spaces = (uint32_t)(most - width(c, line) + 1);
        }
        i = end + 1;
    }
}

/* --- the face --- */

static char *write_pieces(const Cutter *c)
{
    GString *out = g_string_sized_new(c->size + 64);

    for (guint i = 0; i < c->pieces->len; i++) {
        const Piece *piece = &g_array_index(c->pieces, Piece, i);

        for (uint32_t n = 0; n < piece->spaces; n++)
            g_string_append_c(out, ' ');
        g_string_append_len(out, c->text + piece->start, piece->length);
    }
    return g_string_free(out, FALSE);
}

char *format_text(const char *text, size_t size)
{
    g_autoptr(GArray) pieces = g_array_new(FALSE, FALSE, sizeof(Piece));
    g_autoptr(GArray) modes = g_array_new(FALSE, FALSE, sizeof(Mode));
    Cutter c = { .text = text, .size = size, .pieces = pieces, .modes = modes };
    g_autoptr(GArray) lines = NULL;

    cut(&c);
    lines = collect_lines(&c);
    indent(&c, lines);
    space(&c, lines);
    align(&c, lines, false, lead_width);
    align(&c, lines, true, whole_width);
    return write_pieces(&c);
}
