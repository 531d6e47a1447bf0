/* SPDX-License-Identifier: Apache-2.0
 *
 * Registers as properties. Knows no frame.
 *
 * Source: Modbus Application Protocol V1.1b3, 4.2 (the high byte of a register first); the order of registers is the
 * maker's choice, named by where the bytes A (highest) to D go.
 */
#include "meter.h"

/* The bytes of a value as one number, however they were sent. */
static uint64_t gather(const uint8_t *at, uint32_t registers, uint8_t order) {
    uint64_t value = 0;
    for (uint32_t i = 0; i < registers; i++) {
        const uint8_t *one = at + 2 * (order & 2 ? registers - 1 - i : i);
        uint16_t word = gw_be16(one);
        if (order & 1) word = (uint16_t)(word << 8 | word >> 8);
        value = value << 16 | word;
    }
    return value;
}

/* JSON has no NaN and no infinity: a meter that sends one has no value. */
static void write_float(gw_out *out, double value) {
    if (value - value == 0) gw_f64(out, value);
    else gw_nil(out);
}

static void write_scaled(gw_out *out, const point *p, double value) {
    value = p->divisor ? value / p->divisor : value * p->scale;
    write_float(out, value + p->add);
}

static void write_unsigned(gw_out *out, const point *p, uint64_t value) {
    if (p->is_scaled) write_scaled(out, p, (double)value);
    else gw_uint(out, value);
}

static void write_signed(gw_out *out, const point *p, int64_t value) {
    if (p->is_scaled) write_scaled(out, p, (double)value);
    else gw_int(out, value);
}

static void write_value(gw_out *out, const block *b, const point *p, const uint8_t *data) {
    if (holds_bits(b->function)) {
        gw_bool(out, data[p->offset / 8] >> p->offset % 8 & 1);
        return;
    }
    const uint8_t *at = data + 2 * p->offset;
    switch (p->type) {
    case U16: write_unsigned(out, p, gather(at, 1, p->order)); break;
    case S16: write_signed(out, p, (int16_t)gather(at, 1, p->order)); break;
    case U32: write_unsigned(out, p, gather(at, 2, p->order)); break;
    case S32: write_signed(out, p, (int32_t)gather(at, 2, p->order)); break;
    case U64: write_unsigned(out, p, gather(at, 4, p->order)); break;
    case F32: write_scaled(out, p, (double)gw_bits_f32((uint32_t)gather(at, 2, p->order))); break;
    case F64: write_scaled(out, p, gw_bits_f64(gather(at, 4, p->order))); break;
    default: gw_bool(out, gather(at, 1, p->order) >> p->bit & 1); break;
    }
}

/* The map of all points of a block, from the data of its reply. */
void write_points(gw_out *out, const block *b, const uint8_t *data) {
    gw_map(out, b->points);
    for (uint32_t i = 0; i < b->points; i++) {
        const point *p = &map_points[b->first + i];
        gw_cstr(out, p->name);
        write_value(out, b, p, data);
    }
}
