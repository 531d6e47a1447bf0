/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call may ask: {body, charset?}.
 */
#include "gb28181.h"

static char text[TEXT_MOST];

typedef struct { const uint8_t *bytes; uint32_t len; charset charset; } body;

static bool is_blank(uint8_t c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* Devices send the buffer that they print into: around the document may be ends of lines, and behind it zeros. */
static void trim(body *b) {
    for (; b->len && is_blank(*b->bytes); b->len--) b->bytes++;
    if (b->len >= 3 && memcmp(b->bytes, "\xef\xbb\xbf", 3) == 0) {
        b->bytes += 3;
        b->len -= 3;
    }
    while (b->len && (b->bytes[b->len - 1] == 0 || is_blank(b->bytes[b->len - 1]))) b->len--;
}

/* The value of `encoding` in the XML declaration; false where there is none. */
static bool declared(const body *b, const char **name, uint32_t *len) {
    static const char key[] = "encoding";
    const char *at = (const char *)b->bytes, *end = at + (b->len < 200 ? b->len : 200);
    if (b->len < 5 || memcmp(at, "<?xml", 5) != 0) return false;
    for (; end - at > 10 && *at != '>' && memcmp(at, key, 8) != 0;) at++;
    if (end - at <= 10 || *at == '>') return false;
    for (at += 8; at < end && (*at == ' ' || *at == '='); at++);
    if (at == end || (*at != '"' && *at != '\'')) return false;
    char quote = *at++;
    *name = at;
    while (at < end && *at != quote && *at != '>') at++;
    *len = (uint32_t)(at - *name);
    return at < end && *at == quote;
}

static int32_t choose_charset(body *b, const gw_args *args) {
    const char *name;
    uint32_t len;
    gw_value asked = gw_arg_value(args, "charset");
    if (asked.type != GW_T_END) {
        if (asked.type == GW_T_STR && charset_named(asked.text, asked.len, &b->charset)) return GW_WRITTEN;
        return gw_bad_arg("charset", "must be \"utf-8\", \"gb2312\", \"gbk\" or \"gb18030\"");
    }
    if (b->len >= 2 && (b->bytes[0] ^ b->bytes[1]) == 1 && b->bytes[0] >= 0xfe)
        return gw_error(GW_UNSUPPORTED, "body: UTF-16 is not read: send UTF-8 or GB 18030");
    if (declared(b, &name, &len)) {
        if (!charset_named(name, len, &b->charset))
            return gw_error(GW_UNSUPPORTED, "body: its encoding is neither UTF-8 nor GB2312, GBK or GB18030; "
                                            "say what it is in `charset`");
        if (b->charset == GB18030) return GW_WRITTEN;
    }
    b->charset = charset_guessed(b->bytes, b->len);
    return GW_WRITTEN;
}

static int32_t refused(const body *b, uint32_t offset, const refusal *why) {
    gw_text t = gw_refusal_begin();
    gw_say(&t, "body: byte ");
    gw_say_int(&t, offset + source_offset(b->charset, b->bytes, b->len, why->at));
    gw_say(&t, ": ");
    gw_say(&t, why->text);
    return gw_refusal_end(why->ends ? GW_TRUNCATED : GW_BAD_CONFIG, &t);
}

static int32_t call(gw_out *out, gw_in in, uint32_t aux) {
    gw_args args;
    body b;
    uint32_t len, replaced;
    refusal why;
    GW_TRY(gw_args_read(&args, in));
    GW_TRY(gw_arg_bytes(&args, "body", &b.bytes, &b.len));
    const uint8_t *whole = b.bytes;
    trim(&b);
    GW_TRY(choose_charset(&b, &args));
    if (!to_utf8(b.charset, b.bytes, b.len, text, &len, &replaced))
        return gw_error(GW_TOO_LARGE, "body: is longer than 8 MiB as UTF-8");
    const node *root = parse_xml(text, len, &why);
    if (!root) return refused(&b, (uint32_t)(b.bytes - whole), &why);
    return write_body(out, root, b.charset, replaced);
}

GW_CALLER(call)
