/* SPDX-License-Identifier: Apache-2.0
 *
 * Character sets. GB2312 and GBK are parts of GB 18030, so that one table serves all three names.
 */
#include "gb28181.h"
#include "gb18030.h"

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

static bool is_named(const char *name, uint32_t len, const char *as) {
    for (uint32_t i = 0; i < len; i++, as++)
        if (!*as || lower(name[i]) != *as) return false;
    return !*as;
}

bool charset_named(const char *name, uint32_t len, charset *to) {
    static const char *const utf_8[] = {"utf-8", "utf8", "us-ascii", "ascii"};
    static const char *const gb[] = {"gb2312", "gb_2312-80", "gbk", "cp936", "gb18030", "gb18030-2000", "gb18030-2005"};
    for (uint32_t i = 0; i < sizeof utf_8 / sizeof *utf_8; i++)
        if (is_named(name, len, utf_8[i])) { *to = UTF_8; return true; }
    for (uint32_t i = 0; i < sizeof gb / sizeof *gb; i++)
        if (is_named(name, len, gb[i])) { *to = GB18030; return true; }
    return false;
}

static uint32_t nothing(uint32_t *code) {
    *code = REPLACEMENT;
    return 1;
}

/* No overlong form, no surrogate, nothing past U+10FFFF. Source: RFC 3629, section 4. */
static uint32_t read_utf8(const uint8_t *at, uint32_t left, uint32_t *code) {
    uint32_t n = *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : 4, v = *at & (0xffu >> (n + 1));
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (*at < 0xc2 || *at > 0xf4 || left < n) return nothing(code);
    for (uint32_t i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) return nothing(code);
        v = v << 6 | (at[i] & 0x3f);
    }
    if (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000)) return nothing(code);
    *code = v;
    return n;
}

/* Characters of four bytes are counted; the count leads to the run that holds it. */
static uint32_t gb_counted(uint32_t count) {
    if (count >= GB_SUPPLEMENTARY) return count - GB_SUPPLEMENTARY <= 0xfffff ? count - GB_SUPPLEMENTARY + 0x10000 : 0;
    if (count >= GB_BMP) return 0;
    uint32_t low = 0, high = sizeof gb_runs / sizeof *gb_runs;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (gb_runs[middle].count <= count) low = middle;
        else high = middle;
    }
    return gb_runs[low].code ? gb_runs[low].code + count - gb_runs[low].count : 0;
}

/* Source: GB 18030-2005, clause 6. */
static uint32_t read_gb(const uint8_t *at, uint32_t left, uint32_t *code) {
    if (*at < 0x81 || *at > 0xfe || left < 2) return nothing(code);
    uint32_t lead = *at - 0x81, trail = at[1], found = 0, n = 2;
    if (trail >= 0x40 && trail <= 0xfe && trail != 0x7f) {
        found = gb_two_bytes[lead * 190 + trail - (trail < 0x7f ? 0x40 : 0x41)];
    } else if (trail >= 0x30 && trail <= 0x39 && left >= 4 && at[2] >= 0x81 && at[2] <= 0xfe && at[3] >= 0x30 &&
               at[3] <= 0x39) {
        found = gb_counted(((lead * 10 + trail - 0x30) * 126 + at[2] - 0x81) * 10 + at[3] - 0x30);
        n = 4;
    }
    if (!found) return nothing(code);
    *code = found;
    return n;
}

uint32_t read_char(charset c, const uint8_t *at, uint32_t left, uint32_t *code) {
    if (*at < 0x80) {
        *code = *at;
        return 1;
    }
    return c == UTF_8 ? read_utf8(at, left, code) : read_gb(at, left, code);
}

/* Devices declare UTF-8 and send GBK, and cut names in the middle of a character: UTF-8 is what has more good
 * characters than bad ones. GBK read as UTF-8 is nearly all bad. */
charset charset_guessed(const uint8_t *body, uint32_t len) {
    uint32_t good = 0, bad = 0, code;
    for (uint32_t at = 0; at < len;) {
        uint32_t n = read_char(UTF_8, body + at, len - at, &code);
        if (n > 1) good++;
        else if (code == REPLACEMENT) bad++;
        at += n;
    }
    return good >= bad ? UTF_8 : GB18030;
}

uint32_t put_utf8(char *to, uint32_t code) {
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    uint32_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (uint32_t i = n - 1; i; i--, code >>= 6) to[i] = (char)(0x80 | (code & 0x3f));
    to[0] = (char)(0xf00u >> n | code);
    return n;
}

bool to_utf8(charset c, const uint8_t *body, uint32_t len, char *text, uint32_t *text_len, uint32_t *replaced) {
    uint32_t code, end = 0;
    *replaced = 0;
    for (uint32_t at = 0; at < len;) {
        uint32_t n = read_char(c, body + at, len - at, &code);
        if (end > TEXT_MOST - 4) return false;
        if (n == 1 && code == REPLACEMENT) ++*replaced;
        end += put_utf8(text + end, code);
        at += n;
    }
    *text_len = end;
    return true;
}

uint32_t source_offset(charset c, const uint8_t *body, uint32_t len, uint32_t wanted) {
    uint32_t code, at = 0;
    char sink[4];
    for (uint32_t end = 0; at < len;) {
        uint32_t n = read_char(c, body + at, len - at, &code);
        end += put_utf8(sink, code);
        if (end > wanted) break;
        at += n;
    }
    return at;
}
