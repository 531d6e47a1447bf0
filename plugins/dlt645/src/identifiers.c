/* SPDX-License-Identifier: Apache-2.0
 *
 * Data identifiers: which property each stands for, and how its data is laid out. Knows no frame.
 *
 * Source: DL/T 645-2007, annex A, tables A.1 (energy), A.2 (demand), A.3 (variables), A.5 (parameters).
 */
#include "dlt645.h"

typedef struct {
    uint32_t di;
    const char *name;
    uint8_t form, bytes, decimals;
    bool is_signed;
} entry;

/* Table A.3, and of A.5 what tells of the meter itself. In ascending order. */
static const entry entries[] = {
    {0x00900100, "remaining_energy", AS_NUMBER, 4, 2, false},
    {0x00900101, "overdraft_energy", AS_NUMBER, 4, 2, false},
    {0x00900200, "remaining_amount", AS_NUMBER, 4, 2, false},
    {0x00900201, "overdraft_amount", AS_NUMBER, 4, 2, false},
    {0x02010100, "phase_a_voltage", AS_NUMBER, 2, 1, false},
    {0x02010200, "phase_b_voltage", AS_NUMBER, 2, 1, false},
    {0x02010300, "phase_c_voltage", AS_NUMBER, 2, 1, false},
    {0x02020100, "phase_a_current", AS_NUMBER, 3, 3, true},
    {0x02020200, "phase_b_current", AS_NUMBER, 3, 3, true},
    {0x02020300, "phase_c_current", AS_NUMBER, 3, 3, true},
    {0x02030000, "active_power", AS_NUMBER, 3, 4, true},
    {0x02030100, "phase_a_active_power", AS_NUMBER, 3, 4, true},
    {0x02030200, "phase_b_active_power", AS_NUMBER, 3, 4, true},
    {0x02030300, "phase_c_active_power", AS_NUMBER, 3, 4, true},
    {0x02040000, "reactive_power", AS_NUMBER, 3, 4, true},
    {0x02040100, "phase_a_reactive_power", AS_NUMBER, 3, 4, true},
    {0x02040200, "phase_b_reactive_power", AS_NUMBER, 3, 4, true},
    {0x02040300, "phase_c_reactive_power", AS_NUMBER, 3, 4, true},
    {0x02050000, "apparent_power", AS_NUMBER, 3, 4, true},
    {0x02050100, "phase_a_apparent_power", AS_NUMBER, 3, 4, true},
    {0x02050200, "phase_b_apparent_power", AS_NUMBER, 3, 4, true},
    {0x02050300, "phase_c_apparent_power", AS_NUMBER, 3, 4, true},
    {0x02060000, "power_factor", AS_NUMBER, 2, 3, true},
    {0x02060100, "phase_a_power_factor", AS_NUMBER, 2, 3, true},
    {0x02060200, "phase_b_power_factor", AS_NUMBER, 2, 3, true},
    {0x02060300, "phase_c_power_factor", AS_NUMBER, 2, 3, true},
    {0x02070100, "phase_a_angle", AS_NUMBER, 2, 1, false},
    {0x02070200, "phase_b_angle", AS_NUMBER, 2, 1, false},
    {0x02070300, "phase_c_angle", AS_NUMBER, 2, 1, false},
    {0x02080100, "phase_a_voltage_distortion", AS_NUMBER, 2, 2, false},
    {0x02080200, "phase_b_voltage_distortion", AS_NUMBER, 2, 2, false},
    {0x02080300, "phase_c_voltage_distortion", AS_NUMBER, 2, 2, false},
    {0x02090100, "phase_a_current_distortion", AS_NUMBER, 2, 2, false},
    {0x02090200, "phase_b_current_distortion", AS_NUMBER, 2, 2, false},
    {0x02090300, "phase_c_current_distortion", AS_NUMBER, 2, 2, false},
    {0x02800001, "neutral_current", AS_NUMBER, 3, 3, true},
    {0x02800002, "frequency", AS_NUMBER, 2, 2, false},
    {0x02800003, "active_power_1min", AS_NUMBER, 3, 4, true},
    {0x02800004, "active_demand", AS_NUMBER, 3, 4, true},
    {0x02800005, "reactive_demand", AS_NUMBER, 3, 4, true},
    {0x02800006, "apparent_demand", AS_NUMBER, 3, 4, true},
    {0x02800007, "meter_temperature", AS_NUMBER, 2, 1, true},
    {0x02800008, "clock_battery_voltage", AS_NUMBER, 2, 2, false},
    {0x02800009, "reading_battery_voltage", AS_NUMBER, 2, 2, false},
    {0x0280000a, "battery_working_time", AS_NUMBER, 4, 0, false},
    {0x0280000b, "tier_price", AS_NUMBER, 4, 4, false},
    {0x04000101, "meter_date", AS_DATE, 4, 0, false},
    {0x04000102, "meter_time", AS_TIME, 3, 0, false},
    {0x04000103, "demand_period", AS_NUMBER, 1, 0, false},
    {0x04000104, "demand_slide", AS_NUMBER, 1, 0, false},
    {0x0400010c, "meter_clock", AS_CLOCK, 7, 0, false},
    {0x04000401, "communication_address", AS_DIGITS, 6, 0, false},
    {0x04000402, "meter_number", AS_DIGITS, 6, 0, false},
    {0x04000403, "asset_number", AS_TEXT, 32, 0, false},
    {0x04000404, "rated_voltage", AS_TEXT, 6, 0, false},
    {0x04000405, "rated_current", AS_TEXT, 6, 0, false},
    {0x04000406, "maximum_current", AS_TEXT, 6, 0, false},
    {0x04000407, "active_accuracy", AS_TEXT, 4, 0, false},
    {0x04000408, "reactive_accuracy", AS_TEXT, 4, 0, false},
    {0x04000409, "active_constant", AS_NUMBER, 3, 0, false},
    {0x0400040a, "reactive_constant", AS_NUMBER, 3, 0, false},
    {0x0400040b, "meter_model", AS_TEXT, 10, 0, false},
    {0x0400040c, "production_date", AS_TEXT, 10, 0, false},
    {0x0400040d, "protocol_version", AS_TEXT, 16, 0, false},
    {0x04000501, "status_word_1", AS_STATUS, 2, 0, false},
    {0x04000502, "status_word_2", AS_STATUS, 2, 0, false},
    {0x04000503, "status_word_3", AS_STATUS, 2, 0, false},
    {0x04000504, "status_word_4", AS_STATUS, 2, 0, false},
    {0x04000505, "status_word_5", AS_STATUS, 2, 0, false},
    {0x04000506, "status_word_6", AS_STATUS, 2, 0, false},
    {0x04000507, "status_word_7", AS_STATUS, 2, 0, false},
    {0x04800001, "software_version", AS_TEXT, 32, 0, false},
    {0x04800002, "hardware_version", AS_TEXT, 32, 0, false},
    {0x04800003, "manufacturer_code", AS_TEXT, 32, 0, false},
};

static const entry *find_entry(uint32_t di) {
    uint32_t low = 0, high = sizeof entries / sizeof *entries;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (entries[middle].di == di) return &entries[middle];
        if (entries[middle].di < di) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* Append to a name; what does not fit is cut. */
static void add(char *name, const char *text) {
    size_t at = strlen(name);
    while (*text && at + 1 < NAME_BYTES) name[at++] = *text++;
    name[at] = 0;
}
static void add_number(char *name, uint32_t number) {
    char text[3] = {(char)('0' + number / 10 % 10), (char)('0' + number % 10), 0};
    add(name, number < 10 ? text + 1 : text);
}

/* DI2 of tables A.1 and A.2 beside the phase: what is counted. NULL: nothing we know. */
static const char *quantity_of(uint32_t di2) {
    static const char *const low[] = {
        "combined_active", "forward_active", "reverse_active", "combined_reactive_1", "combined_reactive_2",
        "q1_reactive", "q2_reactive", "q3_reactive", "q4_reactive", "forward_apparent", "reverse_apparent",
    };
    static const char *const high[] = {
        "associated", "forward_active_fundamental", "reverse_active_fundamental", "forward_active_harmonic",
        "reverse_active_harmonic", "copper_loss", "iron_loss",
    };
    if (di2 < sizeof low / sizeof *low) return low[di2];
    return di2 >= 0x80 && di2 - 0x80 < sizeof high / sizeof *high ? high[di2 - 0x80] : NULL;
}

/* Phases lie 14H apart: forward active is 01, of phase A 15, of phase B 29, of phase C 3D. From 80 on phases have all
 * quantities; below they have no combined active, so that 14 is none. */
static uint32_t phase_of(uint32_t di2) {
    uint32_t within = di2 & 0x7f;
    if (di2 & 0x80) return within / 0x14;
    return within ? (within - 1) / 0x14 : 0;
}

/* Tables A.1 and A.2: quantity, tariff (DI1: 00 all, 01 to 3F) and settlement (DI0: 00 now, 01 to 0C past ones). */
static bool find_register(item *it, uint32_t di) {
    static const char *const phases[] = {"", "phase_a_", "phase_b_", "phase_c_"};
    uint32_t di2 = di >> 16 & 0xff, tariff = di >> 8 & 0xff, settlement = di & 0xff, phase = phase_of(di2);
    bool is_demand = di >> 24 == 1;
    if (phase > 3 || tariff > 0x3f || settlement > 12) return false;
    uint32_t kind = di2 - phase * 0x14;
    const char *quantity = quantity_of(kind);
    if (!quantity || (is_demand && kind >= 0x80)) return false;
    it->name[0] = 0;
    add(it->name, phases[phase]);
    add(it->name, quantity);
    add(it->name, is_demand ? "_demand" : "_energy");
    if (tariff) { add(it->name, "_t"); add_number(it->name, tariff); }
    if (settlement) { add(it->name, "_settlement_"); add_number(it->name, settlement); }
    it->form = is_demand ? AS_DEMAND : AS_NUMBER;
    it->bytes = is_demand ? 8 : 4;
    it->decimals = is_demand ? 4 : 2;
    it->is_signed = kind == 0 || kind == 3 || kind == 4 || kind == 0x80 || kind == 0x85 || kind == 0x86;
    return true;
}

/* 02 0A and 02 0B: harmonics 1 to 21 of a phase's voltage and current. */
static bool find_harmonic(item *it, uint32_t di) {
    uint32_t phase = di >> 8 & 0xff, harmonic = di & 0xff;
    if (phase < 1 || phase > 3 || harmonic < 1 || harmonic > 21) return false;
    static const char *const phases[] = {"phase_a_", "phase_b_", "phase_c_"};
    it->name[0] = 0;
    add(it->name, phases[phase - 1]);
    add(it->name, di >> 16 == 0x020a ? "voltage_harmonic_" : "current_harmonic_");
    add_number(it->name, harmonic);
    it->form = AS_NUMBER;
    it->bytes = 2;
    it->decimals = 2;
    it->is_signed = false;
    return true;
}

/* What one identifier stands for; false where this codec does not know it. */
bool find_item(item *it, uint32_t di) {
    const entry *found = find_entry(di);
    if (found) {
        it->name[0] = 0;
        add(it->name, found->name);
        it->form = (form)found->form;
        it->bytes = found->bytes;
        it->decimals = found->decimals;
        it->is_signed = found->is_signed;
        return true;
    }
    if (di >> 24 <= 1) return find_register(it, di);
    return (di >> 16 == 0x020a || di >> 16 == 0x020b) && find_harmonic(it, di);
}

/* Whether an identifier asks for a whole block, and the identifiers that it holds: tariffs (DI1), or settlements (DI0)
 * from the present on. Which quantities a meter has (DI2), and in what order it sends them, its answer does not say. */
bool is_block(uint32_t di, uint32_t *first, uint32_t *step) {
    uint32_t di2 = di >> 16 & 0xff, di1 = di >> 8 & 0xff, di0 = di & 0xff;
    *step = 0x100;
    if (di >> 24 <= 1 && di1 == 0xff && di0 <= 12) {
        *first = di & 0xffff00ff;
        return true;
    }
    if (di >> 24 <= 1 && di0 == 0xff && di1 <= 0x3f) {
        *step = 1;
        *first = di & 0xffffff00;
        return true;
    }
    if (di >> 24 == 2 && di2 >= 1 && di2 <= 9 && di1 == 0xff && di0 == 0) {
        /* Powers and power factors begin with the total, all else with phase A. */
        *first = (di & 0xffff0000) | (di2 >= 3 && di2 <= 6 ? 0 : 0x100);
        return true;
    }
    *step = 1;
    *first = (di & 0xffffff00) | 1;
    return di == 0x040005ff || ((di >> 16 == 0x020a || di >> 16 == 0x020b) && di0 == 0xff);
}
