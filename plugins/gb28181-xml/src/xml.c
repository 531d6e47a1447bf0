/* SPDX-License-Identifier: Apache-2.0
 *
 * XML 1.0 (fifth edition) without document types: no DTD, hence no entities but the five that every document has.
 *
 * The text is changed on the way: what a node says lies where it lay, with references replaced, comments and CDATA
 * marks taken out. It only ever gets shorter, so that what is written never overtakes what is read.
 */
#include "gb28181.h"

static node nodes[NODES_MOST]; /* place 0 is not used */
static uint32_t used;

node *node_at(uint32_t place) { return &nodes[place]; }

typedef struct {
    char *start, *at, *end;
    refusal *why;
    uint32_t open[DEPTH_MOST]; /* elements that are not closed yet, the root first */
    uint32_t last[DEPTH_MOST]; /* the last child of each */
    bool has_elements[DEPTH_MOST];
    uint32_t depth, root;
} parser;

static bool refuse_at(parser *p, const char *at, const char *text) {
    *p->why = (refusal){.text = text, .at = (uint32_t)(at - p->start)};
    return false;
}
static bool refuse(parser *p, const char *text) { return refuse_at(p, p->at, text); }
static bool ends(parser *p, const char *text) {
    *p->why = (refusal){.text = text, .at = (uint32_t)(p->end - p->start), .ends = true};
    return false;
}

/* ---- Characters and names: clauses 2.2 and 2.3 ------------------------------------------------------------------- */

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static bool is_name_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' || (uint8_t)c >= 0x80;
}
static bool is_name_char(char c) { return is_name_start(c) || (c >= '0' && c <= '9') || c == '-' || c == '.'; }
static bool is_char(uint32_t code) {
    return (code >= 0x20 && code < 0xd800) || (code >= 0xe000 && code < 0xfffe) ||
           (code >= 0x10000 && code <= 0x10ffff) || code == '\t' || code == '\n' || code == '\r';
}

static void skip_space(parser *p) {
    while (p->at < p->end && is_space(*p->at)) p->at++;
}
static bool looking_at(const parser *p, const char *text) {
    size_t n = strlen(text);
    return (size_t)(p->end - p->at) >= n && memcmp(p->at, text, n) == 0;
}

static bool read_name(parser *p, const char **name, uint32_t *len) {
    const char *start = p->at;
    if (p->at >= p->end) return ends(p, "ends where a name must stand");
    if (!is_name_start(*p->at)) return refuse(p, "no name begins with this character");
    while (p->at < p->end && is_name_char(*p->at)) p->at++;
    *name = start;
    *len = (uint32_t)(p->at - start);
    return *len <= NAME_MOST || refuse_at(p, start, "a name is longer than 128 bytes");
}

/* ---- References: clause 4.1 -------------------------------------------------------------------------------------- */

static int32_t digit_of(char c, uint32_t base) {
    int32_t v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
    return v < (int32_t)base ? v : -1;
}

/* Behind "&#". */
static bool read_char_reference(parser *p, const char *start, uint32_t *code) {
    uint32_t base = p->at < p->end && *p->at == 'x' ? 16 : 10, v = 0;
    if (base == 16) p->at++;
    const char *digits = p->at;
    for (; p->at < p->end && digit_of(*p->at, base) >= 0; p->at++) {
        v = v * base + (uint32_t)digit_of(*p->at, base);
        if (v > 0x10ffff) return refuse_at(p, start, "a character reference is past U+10FFFF");
    }
    if (p->at >= p->end) return ends(p, "ends inside a reference");
    if (p->at == digits || *p->at != ';') return refuse_at(p, start, "a character reference is not well-formed");
    p->at++;
    *code = v;
    return is_char(v) || refuse_at(p, start, "a character reference names a character that XML has not");
}

/* At "&"; the character goes to `*to`. */
static bool read_reference(parser *p, char **to) {
    static const struct { const char *text; char means; } known[] = {
        {"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&apos;", '\''}, {"&quot;", '"'}};
    const char *start = p->at;
    uint32_t code;
    for (uint32_t i = 0; i < sizeof known / sizeof *known; i++)
        if (looking_at(p, known[i].text)) {
            p->at += strlen(known[i].text);
            *(*to)++ = known[i].means;
            return true;
        }
    if (!looking_at(p, "&#"))
        return refuse(p, "an & must be written &amp;, and no entities but lt, gt, amp, apos and quot are known");
    p->at += 2;
    if (!read_char_reference(p, start, &code)) return false;
    *to += put_utf8(*to, code);
    return true;
}

/* One character that stands for itself; a line's end is a line feed (clause 2.11). */
static bool read_plain(parser *p, char **to) {
    char c = *p->at;
    if (!is_char((uint8_t)c)) return refuse(p, "a control character; XML has only tab, line feed and carriage return");
    p->at++;
    if (c == '\r') {
        c = '\n';
        if (p->at < p->end && *p->at == '\n') p->at++;
    }
    *(*to)++ = c;
    return true;
}

/* ---- Nodes ------------------------------------------------------------------------------------------------------- */

static bool add_node(parser *p, const char *name, uint32_t len, bool is_attribute) {
    if (used + 1 >= NODES_MOST) return refuse(p, "more than 262143 elements");
    nodes[++used] = (node){.name = name, .name_len = (uint16_t)len, .is_attribute = is_attribute};
    if (!p->depth) return true;
    uint32_t *last = &p->last[p->depth - 1];
    if (*last) nodes[*last].next = used;
    else nodes[p->open[p->depth - 1]].child = used;
    *last = used;
    return true;
}

static bool open_element(parser *p, const char *name, uint32_t len) {
    if (p->depth == DEPTH_MOST) return refuse_at(p, name, "elements are nested deeper than 16 levels");
    if (!add_node(p, name, len, false)) return false;
    if (p->depth) p->has_elements[p->depth - 1] = true;
    else p->root = used;
    p->open[p->depth] = used;
    p->last[p->depth] = 0;
    p->has_elements[p->depth++] = false;
    return true;
}

static void close_element(parser *p) {
    node *n = &nodes[p->open[--p->depth]];
    while (n->text_len && is_space(n->text[n->text_len - 1])) n->text_len--;
    while (n->text_len && is_space(*n->text)) n->text++, n->text_len--;
}

/* ---- Tags: clause 3.1 -------------------------------------------------------------------------------------------- */

/* Only Num is kept: it is the one attribute that the standard has. */
static bool read_attribute(parser *p) {
    const char *name;
    uint32_t len;
    if (!read_name(p, &name, &len)) return false;
    skip_space(p);
    if (p->at >= p->end) return ends(p, "ends inside a tag");
    if (*p->at != '=') return refuse(p, "an attribute needs = and a value in quotes");
    p->at++;
    skip_space(p);
    if (p->at >= p->end) return ends(p, "ends inside a tag");
    char quote = *p->at;
    if (quote != '"' && quote != '\'') return refuse(p, "an attribute's value must stand in quotes");
    char *value = ++p->at, *to = value;
    while (p->at < p->end && *p->at != quote) {
        if (*p->at == '<') return refuse(p, "a < in an attribute must be written &lt;");
        if (!(*p->at == '&' ? read_reference(p, &to) : read_plain(p, &to))) return false;
    }
    if (p->at >= p->end) return ends(p, "ends inside an attribute");
    p->at++;
    if (len != 3 || memcmp(name, "Num", 3) != 0) return true;
    if (!add_node(p, name, len, true)) return false;
    nodes[used].text = value;
    nodes[used].text_len = (uint32_t)(to - value);
    return true;
}

typedef struct { const char *name[ATTRIBUTES_MOST]; uint32_t len[ATTRIBUTES_MOST], count; } attribute_names;

static bool note_attribute(parser *p, attribute_names *seen) {
    const char *name = p->at;
    uint32_t len = 0;
    while (name + len < p->end && is_name_char(name[len])) len++;
    if (seen->count == ATTRIBUTES_MOST) return refuse(p, "an element has more than 32 attributes");
    for (uint32_t i = 0; i < seen->count; i++)
        if (seen->len[i] == len && memcmp(seen->name[i], name, len) == 0) return refuse(p, "an attribute comes twice");
    seen->name[seen->count] = name;
    seen->len[seen->count++] = len;
    return true;
}

static bool read_start_tag(parser *p) {
    const char *name;
    uint32_t len;
    attribute_names seen = {.count = 0};
    p->at++;
    if (!read_name(p, &name, &len) || !open_element(p, name, len)) return false;
    for (;;) {
        bool spaced = p->at < p->end && is_space(*p->at);
        skip_space(p);
        if (p->at >= p->end) return ends(p, "ends inside a tag");
        if (*p->at == '>') {
            p->at++;
            return true;
        }
        if (looking_at(p, "/>")) {
            p->at += 2;
            close_element(p);
            return true;
        }
        if (!spaced) return refuse(p, "a tag needs a space before an attribute, or > at its end");
        if (!note_attribute(p, &seen) || !read_attribute(p)) return false;
    }
}

static bool read_end_tag(parser *p) {
    const char *start = p->at, *name;
    uint32_t len;
    p->at += 2;
    if (!read_name(p, &name, &len)) return false;
    skip_space(p);
    if (p->at >= p->end) return ends(p, "ends inside a tag");
    if (*p->at != '>') return refuse(p, "an end tag needs > after its name");
    const node *n = p->depth ? &nodes[p->open[p->depth - 1]] : NULL;
    if (!n) return refuse_at(p, start, "an end tag without a start");
    if (n->name_len != len || memcmp(n->name, name, len) != 0)
        return refuse_at(p, start, "an end tag names another element than the one that is open");
    p->at++;
    close_element(p);
    return true;
}

/* ---- Content: clause 3.1, comments 2.5, processing instructions 2.6, CDATA 2.7 ----------------------------------- */

/* Past the next `mark`; what lies before it must be characters. */
static bool skip_past(parser *p, const char *mark, const char *what) {
    for (; p->at < p->end; p->at++) {
        if (looking_at(p, mark)) {
            p->at += strlen(mark);
            return true;
        }
        if (!is_char((uint8_t)*p->at)) return refuse(p, "a control character");
    }
    return ends(p, what);
}

static bool skip_comment(parser *p) {
    p->at += 4;
    if (!skip_past(p, "--", "ends inside a comment")) return false;
    if (p->at >= p->end) return ends(p, "ends inside a comment");
    return *p->at++ == '>' || refuse(p, "-- inside a comment");
}

static bool skip_instruction(parser *p) {
    const char *start = p->at, *name;
    uint32_t len;
    p->at += 2;
    if (!read_name(p, &name, &len)) return false;
    if (len == 3 && (name[0] | 0x20) == 'x' && (name[1] | 0x20) == 'm' && (name[2] | 0x20) == 'l' && start != p->start)
        return refuse_at(p, start, "an XML declaration that is not at the very beginning");
    if (p->at < p->end && !is_space(*p->at) && !looking_at(p, "?>"))
        return refuse(p, "a processing instruction needs a space after its name");
    return skip_past(p, "?>", "ends inside a processing instruction");
}

/* Where the text of the open element goes on: behind what it has, or, where it is not kept, in place. */
static char *text_end(parser *p) {
    node *n = &nodes[p->open[p->depth - 1]];
    if (p->has_elements[p->depth - 1]) return p->at;
    if (!n->text) n->text = p->at;
    return (char *)n->text + n->text_len;
}
static void keep_text(parser *p, const char *end) {
    node *n = &nodes[p->open[p->depth - 1]];
    if (!p->has_elements[p->depth - 1]) n->text_len = (uint32_t)(end - n->text);
}

static bool read_cdata(parser *p) {
    char *to;
    p->at += 9;
    for (to = text_end(p); !looking_at(p, "]]>");) {
        if (p->at >= p->end) return ends(p, "ends inside a CDATA section");
        if (!read_plain(p, &to)) return false;
    }
    p->at += 3;
    keep_text(p, to);
    return true;
}

static bool read_text(parser *p) {
    char *to = text_end(p);
    while (p->at < p->end && *p->at != '<') {
        if (looking_at(p, "]]>")) return refuse(p, "]]> in a text must be written ]]&gt;");
        if (!(*p->at == '&' ? read_reference(p, &to) : read_plain(p, &to))) return false;
    }
    keep_text(p, to);
    return true;
}

static bool read_markup(parser *p) {
    if (looking_at(p, "<!--")) return skip_comment(p);
    if (looking_at(p, "<?")) return skip_instruction(p);
    if (looking_at(p, "</")) return read_end_tag(p);
    if (looking_at(p, "<![CDATA[") && p->depth) return read_cdata(p);
    if (looking_at(p, "<!DOCTYPE")) return refuse(p, "a document type is refused: leave out <!DOCTYPE");
    if (looking_at(p, "<!")) return refuse(p, "a declaration that has no place here");
    if (!p->depth && p->root) return refuse(p, "a second element beside the root");
    return read_start_tag(p);
}

static bool parse(parser *p) {
    while (p->at < p->end) {
        if (*p->at == '<') {
            if (!read_markup(p)) return false;
        } else if (p->depth) {
            if (!read_text(p)) return false;
        } else if (is_space(*p->at)) {
            p->at++;
        } else {
            return refuse(p, "text outside the root element");
        }
    }
    if (p->depth) return ends(p, "ends before the root element is closed");
    return p->root || ends(p, "ends before any element");
}

node *parse_xml(char *text, uint32_t len, refusal *why) {
    parser p = {.start = text, .at = text, .end = text + len, .why = why};
    used = 0;
    return parse(&p) ? &nodes[p.root] : NULL;
}

static node *element_from(uint32_t place) {
    while (place && nodes[place].is_attribute) place = nodes[place].next;
    return place ? &nodes[place] : NULL;
}
node *first_element(const node *parent) { return element_from(parent->child); }
node *next_element(const node *before) { return element_from(before->next); }
