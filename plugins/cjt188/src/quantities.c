/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers with a unit: four bytes of digits and a unit's code before or behind them, converted to one unit for each
 * quantity: kWh, kW, m3/h and m3.
 *
 * Source: CJ/T 188-2004, annex on units of measure.
 */
#include "cjt188.h"

typedef struct {
    uint8_t code;
    uint8_t kind;
    int8_t tens;   /* the power of ten that brings it to the quantity's unit */
    bool is_joule; /* and 3.6 between a megajoule and a kilowatt-hour */
} unit;

static const unit units[] = {
    {0x02, ENERGY, -3, false}, {0x05, ENERGY, 0, false}, {0x08, ENERGY, 3, false}, {0x0a, ENERGY, 5, false},
    {0x01, ENERGY, -6, true},  {0x0b, ENERGY, -3, true}, {0x0e, ENERGY, 0, true},  {0x11, ENERGY, 3, true},
    {0x13, ENERGY, 5, true},   {0x14, POWER, -3, false}, {0x17, POWER, 0, false},  {0x1a, POWER, 3, false},
    {0x29, VOLUME, -3, false}, {0x2c, VOLUME, 0, false}, {0x32, FLOW_RATE, -3, false}, {0x35, FLOW_RATE, 0, false},
};

static const unit *find_unit(uint8_t code, quantity kind) {
    for (uint32_t i = 0; i < sizeof units / sizeof *units; i++)
        if (units[i].code == code && units[i].kind == kind) return &units[i];
    return NULL;
}

/* Whether five bytes are digits (or FF, for none) and a unit of that quantity in that place. */
bool is_quantity(const uint8_t bytes[5], quantity kind, unit_place place) {
    const uint8_t *number = bytes + (place == UNIT_FIRST);
    uint64_t digits;
    if (!find_unit(place == UNIT_FIRST ? bytes[0] : bytes[4], kind)) return false;
    return gw_all_ff(number, 4) || gw_bcd(number, 4, &digits);
}

/* Write the value of what is_quantity found. */
void write_quantity(gw_out *out, const uint8_t bytes[5], quantity kind, unit_place place) {
    const uint8_t *number = bytes + (place == UNIT_FIRST);
    const unit *in = find_unit(place == UNIT_FIRST ? bytes[0] : bytes[4], kind);
    uint64_t digits;
    if (!gw_bcd(number, 4, &digits)) {
        gw_nil(out);
        return;
    }
    /* Places behind the point, of eight digits: the standard writes XXXX.XXXX for m3/h and XXXXXX.XX for all else. */
    int32_t decimals = (kind == FLOW_RATE ? 4 : 2) - in->tens;
    for (; decimals < 0; decimals++) digits *= 10;
    if (!in->is_joule) {
        gw_decimal(out, (int64_t)digits, (uint32_t)decimals);
        return;
    }
    double megajoules = (double)digits;
    for (; decimals > 0; decimals--) megajoules /= 10;
    gw_f64(out, megajoules / 3.6);
}
