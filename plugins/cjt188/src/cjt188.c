/* SPDX-License-Identifier: Apache-2.0
 *
 * The CJ/T 188 codec: which answer becomes which item, its settings, and the exports of the ABI.
 */
#include "cjt188.h"

int32_t clock_offset_min = 480; /* China's time zone, the only one that such meters run on by default */
uint8_t usual_type = 0x10;
bool usual_di_high_first = true;

/* The head of an item that answers a command, or that nobody asked for. */
static void write_answer_head(gw_out *out, const frame *f, gw_asked *question, const char *otherwise, uint32_t pairs) {
    gw_map(out, 2 + pairs + (question ? 2 : 0));
    gw_key(out, "kind"); gw_cstr(out, question ? "reply" : otherwise);
    gw_key(out, "device"); gw_hex_low_first(out, f->address, ADDRESS);
    if (!question) return;
    gw_key(out, "reply_to"); gw_uint(out, question->serial);
    gw_key(out, "ok"); gw_bool(out, !f->refused);
}

enum { FRAME_VALUE_PAIRS = 3 };
static void write_frame_value(gw_out *out, const frame *f) {
    gw_key(out, "address"); gw_hex_low_first(out, f->address, ADDRESS);
    gw_key(out, "meter_type"); gw_hex(out, &f->type, 1);
    gw_key(out, "control"); gw_uint(out, f->control);
}

static void write_di(gw_out *out, uint16_t di) {
    uint8_t bytes[2] = {(uint8_t)(di >> 8), (uint8_t)di};
    gw_key(out, "di"); gw_hex(out, bytes, 2);
}

/* Values that an answer carries: a reading, or the state that a command left. */
static int32_t decode_data(gw_out *out, const frame *f) {
    if (f->len < 3) return gw_error(GW_TRUNCATED, "the answer is shorter than identifier and serial");
    gw_asked *question = find_question(f);
    uint16_t di = read_di(f->data);
    bool has_data = f->len > 3;
    write_answer_head(out, f, question, has_data ? "report" : "heartbeat", 1 + has_data);
    gw_key(out, "value"); gw_map(out, FRAME_VALUE_PAIRS + 3);
    write_frame_value(out, f);
    write_di(out, di);
    gw_key(out, "serial"); gw_uint(out, f->data[2]);
    gw_key(out, "values");
    uint8_t *values = gw_map_open(out);
    gw_close(out, values, write_values(out, f->type, di, f->data + 3, f->len - 3));
    if (has_data && !out->full) {
        /* The same pairs once more, as the point. */
        size_t len = (size_t)(out->at - values);
        gw_key(out, "points"); gw_array(out, 1);
        gw_map(out, 1);
        gw_key(out, "values"); gw_raw(out, values, len);
    }
    if (!out->full) gw_asked_forget(question);
    return GW_WRITTEN;
}

/* 83: the address of the frame is the answer. */
static int32_t decode_address(gw_out *out, const frame *f) {
    gw_asked *question = find_question(f);
    write_answer_head(out, f, question, "report", 2);
    gw_key(out, "points"); gw_array(out, 1);
    gw_map(out, 1);
    gw_key(out, "values"); gw_map(out, 1);
    gw_key(out, "communication_address"); gw_hex_low_first(out, f->address, ADDRESS);
    gw_key(out, "value"); gw_map(out, FRAME_VALUE_PAIRS + 1);
    write_frame_value(out, f);
    gw_key(out, "communication_address"); gw_hex_low_first(out, f->address, ADDRESS);
    if (!out->full) gw_asked_forget(question);
    return GW_WRITTEN;
}

static void write_refusal(gw_out *out, const frame *f) {
    gw_key(out, "function"); gw_uint(out, f->function);
    write_status(out, f->data + 1);
}

/* Cx: serial and status. Nobody asked: it is told as an event. */
static int32_t decode_refusal(gw_out *out, const frame *f) {
    if (f->len < 3) return gw_error(GW_TRUNCATED, "the refusal holds no serial and status");
    gw_asked *question = find_question(f);
    write_answer_head(out, f, question, "event", question ? 1 : 2);
    if (!question) {
        gw_key(out, "event"); gw_map(out, 2);
        gw_key(out, "name"); gw_lit(out, "refused");
        gw_key(out, "data"); gw_map(out, 4);
        write_refusal(out, f);
    }
    gw_key(out, "value"); gw_map(out, FRAME_VALUE_PAIRS + 4);
    write_frame_value(out, f);
    write_refusal(out, f);
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
    if (f.function == READ_ADDRESS) return decode_address(out, &f);
    return decode_data(out, &f);
}

enum { FURTHEST_MIN = 14 * 60 };

static int32_t read_offset(gw_value offset) {
    if (offset.type == GW_T_END) return 0;
    if ((offset.type != GW_T_UINT && offset.type != GW_T_INT) || offset.f64 > FURTHEST_MIN || offset.f64 < -FURTHEST_MIN)
        return gw_error(GW_BAD_CONFIG, "utc_offset_min must be a whole number from -840 to 840, such as 480 for China");
    clock_offset_min = (int32_t)offset.sint;
    return 0;
}

static int32_t init(gw_in start) {
    gw_in config;
    if (!gw_find(start, "config", &config)) return 0;
    gw_value type = gw_get(config, "meter_type"), order = gw_get(config, "di_order");
    if (type.type != GW_T_END && !gw_hex_bytes(type, &usual_type, 1, false))
        return gw_error(GW_BAD_CONFIG, "meter_type must be two hex digits, such as \"10\" for cold water");
    if (order.type != GW_T_END && !read_order(order, &usual_di_high_first))
        return gw_error(GW_BAD_CONFIG, "di_order must be \"high\" (90 1F) or \"low\" (1F 90)");
    return read_offset(gw_get(config, "utc_offset_min"));
}

GW_INIT(init)
GW_DECODER(decode)
GW_ENCODER(encode)
