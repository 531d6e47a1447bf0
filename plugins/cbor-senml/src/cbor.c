/* SPDX-License-Identifier: Apache-2.0
 *
 * A CBOR reader: heads, numbers, and stepping over what nobody wants. Knows no SenML.
 *
 * Source: RFC 8949, 3 (encoding), 3.4.3 and 3.4.4 (bignums, decimal fractions), appendix D (half-precision floats).
 */
#include "senml.h"

enum { BREAK = 0xff, INDEFINITE = 31, BIGNUM_MOST = 128 };

static int32_t truncated(void) { return gw_error(GW_TRUNCATED, "the CBOR ends inside an item"); }

/* Take the next item's head off the reader; of BYTES and TEXT also the content. */
int32_t cbor_next(cbor_in *in, cbor_head *head) {
    if (in->at >= in->end) return truncated();
    uint8_t first = *in->at++;
    *head = (cbor_head){.major = first >> 5, .info = first & 31};
    if (head->info < 24) {
        head->value = head->info;
    } else if (head->info < 28) {
        uint32_t width = 1u << (head->info - 24);
        if ((size_t)(in->end - in->at) < width) return truncated();
        for (uint32_t i = 0; i < width; i++) head->value = head->value << 8 | *in->at++;
    } else if (head->info == INDEFINITE && (head->major == ARRAY || head->major == MAP)) {
        head->is_indefinite = true;
    } else if (head->info == INDEFINITE && (head->major == BYTES || head->major == TEXT)) {
        return gw_error(WRONG_TYPE, "strings must have a definite length (RFC 8428, 6)");
    } else {
        return gw_error(NOT_CBOR, "not well-formed CBOR");
    }
    if (head->major == BYTES || head->major == TEXT) {
        if ((uint64_t)(in->end - in->at) < head->value) return truncated();
        head->bytes = in->at;
        in->at += head->value;
    }
    return GW_WRITTEN;
}

/* Whether a break is next; then it is taken. */
bool cbor_take_break(cbor_in *in) {
    if (in->at >= in->end || *in->at != BREAK) return false;
    in->at++;
    return true;
}

/* Step over what belongs to a head that was taken: the items of an array or map, the content of a tag. */
int32_t cbor_skip_rest(cbor_in *in, const cbor_head *head) {
    struct { uint64_t left; bool is_indefinite; bool is_map; } open[NESTING_MOST];
    uint32_t depth = 0;
    cbor_head item = *head;
    for (;;) {
        if (item.major == ARRAY || item.major == MAP || item.major == TAG) {
            if (depth == NESTING_MOST) return gw_error(TOO_MUCH, "a field is nested deeper than 16 levels");
            bool is_map = item.major == MAP;
            /* No more pairs than bytes can follow: the product stays small. */
            if (is_map && item.value > (uint64_t)(in->end - in->at)) return truncated();
            open[depth].left = item.major == TAG ? 1 : item.value * (is_map ? 2 : 1);
            open[depth].is_indefinite = item.is_indefinite;
            open[depth].is_map = is_map;
            depth++;
        }
        while (depth && !open[depth - 1].is_indefinite && open[depth - 1].left == 0) depth--;
        while (depth && open[depth - 1].is_indefinite && cbor_take_break(in)) {
            if (open[depth - 1].is_map && open[depth - 1].left & 1) return gw_error(NOT_CBOR, "a map ends behind a key");
            depth--;
            while (depth && !open[depth - 1].is_indefinite && open[depth - 1].left == 0) depth--;
        }
        if (!depth) return GW_WRITTEN;
        /* Of an indefinite container `left` counts what came, for the parity of keys and values. */
        open[depth - 1].left += open[depth - 1].is_indefinite ? 1 : -1ull;
        int32_t status = cbor_next(in, &item);
        if (status != GW_WRITTEN) return status;
    }
}

/* ---- Numbers ------------------------------------------------------------------------------------------------------- */

static double half(uint16_t bits) {
    uint32_t exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    double value;
    if (exponent == 31) value = fraction ? gw_bits_f64(0x7ff8000000000000) : gw_bits_f64(0x7ff0000000000000);
    else if (exponent == 0) value = fraction / 16777216.0; /* 2^24 */
    else value = (double)((uint64_t)(1024u + fraction) << exponent) / 33554432.0; /* 2^25 */
    return bits & 0x8000 ? -value : value;
}

/* A value times a power of ten; past the range of a double it becomes zero or infinite. */
static double times_ten(double value, int64_t exponent) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    int32_t left = exponent > 800 ? 800 : exponent < -800 ? -800 : (int32_t)exponent;
    for (; left > 22; left -= 22) value *= 1e22;
    for (; left < -22; left += 22) value /= 1e22;
    return left < 0 ? value / powers[-left] : value * powers[left];
}

static void set_int(number *to, uint64_t argument, bool is_negative) {
    /* The value of a negative head is -1 - argument; one more than 64 bits hold stays a float. */
    to->is_negative = is_negative;
    to->is_int = !is_negative || argument < UINT64_MAX;
    to->magnitude = argument + is_negative;
    to->value = is_negative ? -1.0 - (double)argument : (double)argument;
}

static void set_float(number *to, double value) {
    *to = (number){.value = value};
}

static int32_t bignum(number *to, const cbor_head *bytes, bool is_negative) {
    if (bytes->major != BYTES || bytes->value > BIGNUM_MOST)
        return gw_error(WRONG_TYPE, "a bignum must be a byte string of at most 128 bytes");
    double value = 0;
    for (uint64_t i = 0; i < bytes->value; i++) value = value * 256 + bytes->bytes[i];
    set_float(to, is_negative ? -1.0 - value : value);
    return GW_WRITTEN;
}

static int32_t integer(cbor_in *in, const cbor_head *head, number *to) {
    if (head->major == UNSIGNED || head->major == NEGATIVE) {
        set_int(to, head->value, head->major == NEGATIVE);
        return GW_WRITTEN;
    }
    if (head->major != TAG || (head->value != 2 && head->value != 3)) return gw_error(WRONG_TYPE, "a number is expected");
    cbor_head bytes;
    int32_t status = cbor_next(in, &bytes);
    return status == GW_WRITTEN ? bignum(to, &bytes, head->value == 3) : status;
}

/* Tag 4: an array of exponent and mantissa. */
static int32_t decimal_fraction(cbor_in *in, number *to) {
    cbor_head pair, exponent, mantissa;
    number power, digits;
    int32_t status = cbor_next(in, &pair);
    if (status != GW_WRITTEN) return status;
    if (pair.major != ARRAY || pair.is_indefinite || pair.value != 2)
        return gw_error(WRONG_TYPE, "a decimal fraction must be an array of two integers");
    status = cbor_next(in, &exponent);
    if (status != GW_WRITTEN) return status;
    if (exponent.major > NEGATIVE) return gw_error(WRONG_TYPE, "a decimal fraction must be an array of two integers");
    set_int(&power, exponent.value, exponent.major == NEGATIVE);
    status = cbor_next(in, &mantissa);
    if (status == GW_WRITTEN) status = integer(in, &mantissa, &digits);
    if (status != GW_WRITTEN) return status;
    double bounded = power.value > 1e6 ? 1e6 : power.value < -1e6 ? -1e6 : power.value;
    set_float(to, times_ten(digits.value, (int64_t)bounded));
    return GW_WRITTEN;
}

/* The number that a head begins; one that is not finite is refused. */
int32_t cbor_number(cbor_in *in, const cbor_head *head, number *to) {
    int32_t status = GW_WRITTEN;
    if (head->major == SIMPLE && head->info == 25) set_float(to, half((uint16_t)head->value));
    else if (head->major == SIMPLE && head->info == 26) set_float(to, (double)gw_bits_f32((uint32_t)head->value));
    else if (head->major == SIMPLE && head->info == 27) set_float(to, gw_bits_f64(head->value));
    else if (head->major == TAG && head->value == 4) status = decimal_fraction(in, to);
    else status = integer(in, head, to);
    if (status == GW_WRITTEN && to->value - to->value != 0)
        return gw_error(WRONG_TYPE, "a number must be finite: SenML has no NaN and no infinity");
    return status;
}

void write_number(gw_out *out, const number *n) {
    if (!n->is_int || (n->is_negative && n->magnitude > (uint64_t)INT64_MAX + 1)) gw_f64(out, n->value);
    else if (n->is_negative) gw_int(out, -(int64_t)(n->magnitude - 1) - 1);
    else gw_uint(out, n->magnitude);
}
