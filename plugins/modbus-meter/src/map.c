/* SPDX-License-Identifier: Apache-2.0
 *
 * The register map, read from the configuration and checked as a whole. Knows no frame.
 */
#include "meter.h"

block map_blocks[BLOCKS_MOST];
uint32_t map_block_count;
point map_points[POINTS_MOST];

static uint32_t point_count;

/* ---- What is wrong, and where ------------------------------------------------------------------------------------ */

/* "blocks[2].points[3]: ", counted from 1; 0 leaves a part out. */
static gw_text begin_fault(uint32_t block_number, uint32_t point_number) {
    gw_text t = gw_refusal_begin();
    if (block_number) { gw_say(&t, "blocks["); gw_say_int(&t, block_number); gw_say(&t, "]"); }
    if (point_number) { gw_say(&t, ".points["); gw_say_int(&t, point_number); gw_say(&t, "]"); }
    if (block_number) gw_say(&t, ": ");
    return t;
}
static int32_t fault(uint32_t block_number, uint32_t point_number, const char *what) {
    gw_text t = begin_fault(block_number, point_number);
    gw_say(&t, what);
    return gw_refusal_end(GW_BAD_CONFIG, &t);
}

/* ---- Reading keys -------------------------------------------------------------------------------------------------- */

/* A whole number of a key within bounds; `otherwise` where the key is missing, -1 where it is something else. */
static int64_t whole(gw_in map, const char *key, int64_t least, int64_t most, int64_t otherwise) {
    gw_value v = gw_get(map, key);
    if (v.type == GW_T_END) return otherwise;
    return v.type == GW_T_UINT && v.uint >= (uint64_t)least && v.uint <= (uint64_t)most ? (int64_t)v.uint : -1;
}

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

/* What the thing model calls a property id. */
static bool is_property(gw_value v) {
    if (v.type != GW_T_STR || v.len < 1 || v.len > NAME_MOST || !is_letter(v.text[0])) return false;
    for (uint32_t i = 1; i < v.len; i++) {
        char c = v.text[i];
        if (!is_letter(c) && !(c >= '0' && c <= '9') && c != '.' && c != ':' && c != '-') return false;
    }
    return true;
}

/* Whether a map has no key but these; a misspelt one would be ignored otherwise. */
static bool knows_keys(gw_in map, const char *const *keys, uint32_t count) {
    gw_value head = gw_next(&map);
    if (head.type != GW_T_MAP) return false;
    for (uint32_t i = 0; i < head.len; i++) {
        gw_value key = gw_next(&map);
        bool known = false;
        for (uint32_t k = 0; k < count; k++) known |= gw_is(key, keys[k]);
        if (!known || !gw_skip(&map)) return false;
    }
    return true;
}

static bool find_word(gw_value v, const char *const *words, uint32_t count, uint8_t *index) {
    for (uint32_t i = 0; i < count; i++) {
        if (!gw_is(v, words[i])) continue;
        *index = (uint8_t)i;
        return true;
    }
    return false;
}

/* ---- Points -------------------------------------------------------------------------------------------------------- */

static const char *const type_names[] = {"u16", "s16", "u32", "s32", "u64", "f32", "f64", "bit"};
static const uint8_t type_registers[] = {1, 1, 2, 2, 4, 2, 4, 1};
static const char *const order_names[] = {"abcd", "badc", "cdab", "dcba"};

/* A number of a key; false where it is none. */
static bool number(gw_in map, const char *key, double *value) {
    gw_value v = gw_get(map, key);
    if (v.type == GW_T_END) return true;
    if (!gw_is_number(v) || !gw_is_finite(v.f64)) return false;
    *value = v.f64;
    return true;
}

/* A scale of 0.1 is a division by 10: 2301 becomes 230.1, not 230.10000000000002. Only a scale that is the double
 * nearest to such a part is: 0.3333333 is not a third. */
static void set_scale(point *p, double scale) {
    double whole_parts = scale > 1e-9 ? (double)(uint64_t)(1 / scale + 0.5) : 0;
    p->scale = scale;
    p->divisor = whole_parts >= 1 && 1 / whole_parts == scale ? whole_parts : 0;
}

static int32_t read_point(gw_in in, const block *b, uint32_t at, uint32_t number_of) {
    static const char *const keys[] = {"name", "address", "type", "order", "bit", "scale", "offset", "unit"};
    point *p = &map_points[point_count];
    *p = (point){.scale = 1};
    if (!knows_keys(in, keys, sizeof keys / sizeof *keys))
        return fault(at, number_of, "a point has name, address, type, order, bit, scale, offset and unit, nothing else");
    gw_value name = gw_get(in, "name");
    if (!is_property(name)) return fault(at, number_of, "name must be a property id: a letter, then letters, digits, . : - _");
    memcpy(p->name, name.text, name.len);
    for (uint32_t i = b->first; i < point_count; i++)
        if (gw_is(name, map_points[i].name)) return fault(at, number_of, "another point of the block has this name");
    gw_value type = gw_get(in, "type"), order = gw_get(in, "order");
    bool bits = holds_bits(b->function);
    p->type = bits ? BIT : U16;
    if (type.type != GW_T_END && !find_word(type, type_names, sizeof type_names / sizeof *type_names, &p->type))
        return fault(at, number_of, "type must be u16, s16, u32, s32, u64, f32, f64 or bit");
    if (bits && p->type != BIT) return fault(at, number_of, "functions 1 and 2 read bits: type must be bit");
    if (order.type != GW_T_END && !find_word(order, order_names, sizeof order_names / sizeof *order_names, &p->order))
        return fault(at, number_of, "order must be abcd, badc, cdab or dcba");
    int64_t address = whole(in, "address", 0, 0xffff, -1), bit = whole(in, "bit", 0, 15, 0);
    uint32_t size = bits ? 1 : type_registers[p->type];
    if (address < b->address || address + size > (int64_t)b->address + b->count)
        return fault(at, number_of, "address must lie in the block, with all registers of the type");
    if (bit < 0 || (bit > 0 && (bits || p->type != BIT)))
        return fault(at, number_of, "bit must be 0 to 15, and is of type bit in a register");
    p->offset = (uint16_t)(address - b->address);
    p->bit = (uint8_t)bit;
    double scale = 1;
    if (!number(in, "scale", &scale) || !number(in, "offset", &p->add) || scale == 0)
        return fault(at, number_of, "scale and offset must be numbers, scale not 0");
    set_scale(p, scale);
    p->is_scaled = scale != 1 || p->add != 0;
    if (p->is_scaled && p->type == BIT) return fault(at, number_of, "a bit has no scale");
    point_count++;
    return 0;
}

static int32_t read_points(gw_in in, block *b, uint32_t at) {
    gw_value head = gw_next(&in);
    if (head.type != GW_T_ARRAY || head.len == 0) return fault(at, 0, "points must be a list of one point and more");
    b->first = (uint16_t)point_count;
    for (uint32_t i = 0; i < head.len; i++) {
        if (point_count == POINTS_MOST) return fault(at, i + 1, "a map has at most 512 points");
        int32_t status = read_point(in, b, at, i + 1);
        if (status) return status;
        if (!gw_skip(&in)) return fault(at, i + 1, "is no map");
    }
    b->points = (uint16_t)(point_count - b->first);
    return 0;
}

/* ---- Blocks -------------------------------------------------------------------------------------------------------- */

bool holds_bits(uint8_t function) { return function == READ_COILS || function == READ_DISCRETE_INPUTS; }

uint32_t reply_bytes(const block *b) { return holds_bits(b->function) ? (b->count + 7u) / 8 : 2u * b->count; }

static bool look_alike(const block *a, const block *b) {
    return a->function == b->function && reply_bytes(a) == reply_bytes(b) &&
           (a->unit_id == b->unit_id || a->unit_id == 0 || b->unit_id == 0);
}

static int32_t check_alone(uint32_t at) {
    const block *b = &map_blocks[at];
    for (uint32_t i = 0; i < at; i++) {
        const block *other = &map_blocks[i];
        bool same_name = strlen(b->name) == strlen(other->name) && memcmp(b->name, other->name, strlen(b->name)) == 0;
        if (same_name) return fault(at + 1, 0, "another block has this name");
        if (!look_alike(b, other)) continue;
        gw_text t = begin_fault(at + 1, 0);
        gw_say(&t, "its replies look like those of blocks["); gw_say_int(&t, i + 1);
        gw_say(&t, "] (function "); gw_say_int(&t, b->function); gw_say(&t, ", "); gw_say_int(&t, reply_bytes(b));
        gw_say(&t, " bytes); poll one of them with another count, or give each its unit_id");
        return gw_refusal_end(GW_BAD_CONFIG, &t);
    }
    return 0;
}

static int32_t read_block(gw_in in, uint32_t at) {
    static const char *const keys[] = {"name", "unit_id", "function", "address", "count", "points"};
    block *b = &map_blocks[at];
    *b = (block){.unit_id = 0};
    if (!knows_keys(in, keys, sizeof keys / sizeof *keys))
        return fault(at + 1, 0, "a block has name, unit_id, function, address, count and points, nothing else");
    gw_value name = gw_get(in, "name");
    if (!is_property(name) || name.len > BLOCK_NAME_MOST) return fault(at + 1, 0, "name must be a word of at most 32 letters");
    memcpy(b->name, name.text, name.len);
    int64_t unit_id = whole(in, "unit_id", 1, 247, 0), function = whole(in, "function", 1, 4, -1);
    if (unit_id < 0) return fault(at + 1, 0, "unit_id must be 1 to 247, or left out for any");
    if (function < 0) return fault(at + 1, 0, "function must be 1 to 4");
    b->unit_id = (uint8_t)unit_id;
    b->function = (uint8_t)function;
    int64_t address = whole(in, "address", 0, 0xffff, -1);
    int64_t count = whole(in, "count", 1, holds_bits(b->function) ? BITS_MOST : REGISTERS_MOST, -1);
    if (address < 0) return fault(at + 1, 0, "address must be 0 to 65535, as it is sent");
    if (count < 0 || address + count > 0x10000) return fault(at + 1, 0, "count must be 1 to 125 registers, or 1 to 2000 bits");
    b->address = (uint16_t)address;
    b->count = (uint16_t)count;
    gw_in points;
    if (!gw_find(in, "points", &points)) return fault(at + 1, 0, "points is missing");
    int32_t status = read_points(points, b, at + 1);
    return status ? status : check_alone(at);
}

/* Take the map over; 0, or the code of what is wrong with it. */
int32_t read_map(gw_in config) {
    map_block_count = point_count = 0;
    gw_in blocks;
    gw_value head = {.type = GW_T_END};
    if (gw_find(config, "blocks", &blocks)) head = gw_next(&blocks);
    if (head.type != GW_T_ARRAY || head.len == 0 || head.len > BLOCKS_MOST)
        return fault(0, 0, "blocks must be a list of 1 to 32 blocks");
    for (uint32_t i = 0; i < head.len; i++) {
        int32_t status = read_block(blocks, i);
        if (status) return status;
        if (!gw_skip(&blocks)) return fault(i + 1, 0, "is no map");
    }
    map_block_count = head.len;
    return 0;
}

/* The block whose replies look like this, or NULL. */
const block *find_block(uint8_t unit_id, uint8_t function, uint32_t bytes) {
    for (uint32_t i = 0; i < map_block_count; i++) {
        const block *b = &map_blocks[i];
        if (b->function == function && reply_bytes(b) == bytes && (b->unit_id == 0 || b->unit_id == unit_id)) return b;
    }
    return NULL;
}
