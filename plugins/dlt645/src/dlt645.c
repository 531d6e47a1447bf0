/* SPDX-License-Identifier: Apache-2.0
 *
 * The DL/T 645-2007 codec: which answer becomes which item, and the exports of the ABI.
 */
#include "dlt645.h"

static void write_head(gw_out *out, const frame *f, const char *kind, uint32_t pairs) {
    gw_map(out, 2 + pairs);
    gw_key(out, "kind"); gw_cstr(out, kind);
    gw_key(out, "device"); gw_hex_low_first(out, f->address, ADDRESS);
}

/* The head of an item that answers a command, or that nobody asked for. */
static void write_answer_head(gw_out *out, const frame *f, gw_asked *question, const char *otherwise, uint32_t pairs) {
    write_head(out, f, question ? "reply" : otherwise, pairs + (question ? 2 : 0));
    if (!question) return;
    gw_key(out, "reply_to"); gw_uint(out, question->serial);
    gw_key(out, "ok"); gw_bool(out, !f->refused);
}

static void write_frame_value(gw_out *out, const frame *f) {
    gw_key(out, "address"); gw_hex_low_first(out, f->address, ADDRESS);
    gw_key(out, "control"); gw_uint(out, f->control);
}
enum { FRAME_VALUE_PAIRS = 2 };

static void write_di(gw_out *out, uint32_t di) {
    uint8_t bytes[4] = {(uint8_t)(di >> 24), (uint8_t)(di >> 16), (uint8_t)(di >> 8), (uint8_t)di};
    gw_key(out, "di"); gw_hex(out, bytes, 4);
}

/* One point without a time of its own; its values are those that stand written between the marks. */
static void write_point(gw_out *out, const uint8_t *values, size_t len) {
    gw_key(out, "points"); gw_array(out, 1);
    gw_map(out, 1);
    gw_key(out, "values"); gw_raw(out, values, len);
}

/* 91/B1 read data, 92/B2 the data that follows. */
static int32_t decode_data(gw_out *out, const frame *f) {
    bool rest = f->function == READ_NEXT;
    if (f->len < 4u + rest) return gw_error(GW_TRUNCATED, "the answer is shorter than a data identifier");
    uint32_t di = gw_le32(f->data), len = f->len - 4 - rest;
    gw_asked *question = find_question(f);
    bool has_data = len > 0;
    write_answer_head(out, f, question, has_data ? "report" : "heartbeat", 1 + has_data);
    gw_key(out, "value"); gw_map(out, FRAME_VALUE_PAIRS + 3 + rest);
    write_frame_value(out, f);
    write_di(out, di);
    gw_key(out, "more"); gw_bool(out, f->more);
    if (rest) { gw_key(out, "sequence"); gw_uint(out, f->data[4 + len]); }
    gw_key(out, "values");
    uint8_t *values = gw_map_open(out);
    uint32_t count = rest ? write_rest(out, di, f->data[4 + len], f->data + 4, len)
                          : write_values(out, di, f->data + 4, len);
    gw_close(out, values, count);
    /* The same pairs once more, as the point. */
    if (has_data && !out->full) write_point(out, values, (size_t)(out->at - values));
    if (!out->full) gw_asked_forget(question);
    return GW_WRITTEN;
}

/* 93: the address is in the data, too. */
static int32_t decode_address(gw_out *out, const frame *f) {
    if (f->len != ADDRESS) return gw_error(GW_TRUNCATED, "the answer holds no address of six bytes");
    gw_asked *question = find_question(f);
    write_answer_head(out, f, question, "report", 2);
    gw_key(out, "points"); gw_array(out, 1);
    gw_map(out, 1);
    gw_key(out, "values"); gw_map(out, 1);
    gw_key(out, "communication_address"); gw_hex_low_first(out, f->data, ADDRESS);
    gw_key(out, "value"); gw_map(out, FRAME_VALUE_PAIRS + 1);
    write_frame_value(out, f);
    gw_key(out, "communication_address"); gw_hex_low_first(out, f->data, ADDRESS);
    if (!out->full) gw_asked_forget(question);
    return GW_WRITTEN;
}

/* The error word, bit by bit. Source: DL/T 645-2007, table 6. */
static void write_reasons(gw_out *out, uint8_t word) {
    static const char *const reasons[8] = {
        "other", "no_such_data", "not_authorised", "rate_fixed", "too_many_seasons", "too_many_periods",
        "too_many_tariffs", "reserved",
    };
    gw_array(out, (uint32_t)__builtin_popcount(word));
    for (int bit = 0; bit < 8; bit++)
        if (word >> bit & 1) gw_cstr(out, reasons[bit]);
}

static void write_refusal(gw_out *out, const frame *f) {
    gw_key(out, "function"); gw_uint(out, f->function);
    gw_key(out, "error"); gw_uint(out, f->data[0]);
    gw_key(out, "reasons"); write_reasons(out, f->data[0]);
}

/* Dx: the meter will not. Nobody asked: it is told as an event. */
static int32_t decode_refusal(gw_out *out, const frame *f) {
    if (f->len < 1) return gw_error(GW_TRUNCATED, "the refusal holds no error word");
    gw_asked *question = find_question(f);
    write_answer_head(out, f, question, "event", question ? 1 : 2);
    if (!question) {
        gw_key(out, "event"); gw_map(out, 2);
        gw_key(out, "name"); gw_lit(out, "refused");
        gw_key(out, "data"); gw_map(out, 3);
        write_refusal(out, f);
    }
    gw_key(out, "value"); gw_map(out, FRAME_VALUE_PAIRS + 3);
    write_frame_value(out, f);
    write_refusal(out, f);
    if (!out->full) gw_asked_forget(question);
    return GW_WRITTEN;
}

/* 94, 9C and the like: done. What carries data beside, or is of no known function, is kept whole. */
static int32_t decode_done(gw_out *out, const frame *f) {
    gw_asked *question = find_question(f);
    write_answer_head(out, f, question, "event", question ? 1 : 2);
    if (!question) {
        gw_key(out, "event"); gw_map(out, 2);
        gw_key(out, "name"); gw_lit(out, "answered");
        gw_key(out, "data"); gw_map(out, 2);
        gw_key(out, "function"); gw_uint(out, f->function);
        gw_key(out, "data"); gw_hex(out, f->data, f->len);
    }
    gw_key(out, "value"); gw_map(out, FRAME_VALUE_PAIRS + 1);
    write_frame_value(out, f);
    gw_key(out, "data"); gw_hex(out, f->data, f->len);
    if (!out->full) gw_asked_forget(question);
    return GW_WRITTEN;
}

static int32_t decode(gw_out *out, const uint8_t *bytes, uint32_t len, uint32_t aux) {
    frame f;
    int32_t status = read_frame(&f, bytes, len);
    if (status != GW_WRITTEN) return status;
    /* The echo of a master's own frame, which half-duplex lines return. */
    if (!(f.control & 0x80)) return GW_DROP;
    if (f.refused) return decode_refusal(out, &f);
    switch (f.function) {
    case READ: case READ_NEXT: return decode_data(out, &f);
    case READ_ADDRESS: return decode_address(out, &f);
    default: return decode_done(out, &f);
    }
}

enum { FURTHEST_MIN = 14 * 60 };

static int32_t init(gw_in start) {
    gw_in config;
    if (!gw_find(start, "config", &config)) return 0;
    gw_value offset = gw_get(config, "utc_offset_min");
    if (offset.type == GW_T_END) return 0;
    if ((offset.type != GW_T_UINT && offset.type != GW_T_INT) || offset.f64 > FURTHEST_MIN || offset.f64 < -FURTHEST_MIN)
        return gw_error(GW_BAD_CONFIG, "utc_offset_min must be a whole number from -840 to 840, such as 480 for China");
    clock_offset_min = (int32_t)offset.sint;
    return 0;
}

GW_INIT(init)
GW_DECODER(decode)
GW_ENCODER(encode)
