/* SPDX-License-Identifier: Apache-2.0
 *
 * Locations: the 28 fixed bytes, the extras behind them, and messages that carry one, many, or answer a command.
 *
 * A location is shown twice, as the values of a point and in `value`; it is written once and copied.
 */
#include "jt808.h"

enum { ACC_ON = 1 << 0, POSITIONED = 1 << 1, SOUTH = 1 << 2, WEST = 1 << 3 };
enum { EXTRA_MILEAGE = 0x01, EXTRA_RSSI = 0x30, EXTRA_SATELLITES = 0x31 };
enum { FIXED_PAIRS = 11, GMT_PLUS_HOURS = 8, TIME_TEXT = 20 };
enum { RAW_MOST = 64 }; /* extras shown by id; terminals send a dozen */

/* ---- Extras ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *mileage, *rssi, *satellites; /* the value of the last such extra, or NULL */
    const uint8_t *at;
    uint32_t len;      /* bytes of whole extras, up to the last that is named in `extras_raw` */
    uint32_t rest;     /* bytes behind them */
    uint32_t raw;      /* extras of other kinds among them */
    bool well_formed;  /* nothing but whole extras */
} extras;

static const uint8_t **known_extra(extras *e, const uint8_t *extra) {
    if (extra[0] == EXTRA_MILEAGE && extra[1] == 4) return &e->mileage;
    if (extra[0] == EXTRA_RSSI && extra[1] == 1) return &e->rssi;
    if (extra[0] == EXTRA_SATELLITES && extra[1] == 1) return &e->satellites;
    return NULL;
}

static extras read_extras(const uint8_t *at, uint32_t len) {
    extras e = {.at = at};
    uint32_t i = 0;
    bool over = false;
    while (len - i >= 2 && len - i - 2 >= at[i + 1]) {
        const uint8_t **known = known_extra(&e, at + i);
        over = over || (!known && e.raw == RAW_MOST);
        if (known) *known = at + i + 2;
        else if (!over) e.raw++;
        i += 2u + at[i + 1];
        if (!over) e.len = i;
    }
    e.rest = len - e.len;
    e.well_formed = i == len;
    return e;
}

/* `0x2a`; the second extra of that id is `0x2a.2`. */
static void write_extra_name(gw_out *out, uint8_t id, uint32_t nth) {
    char name[12] = {'0', 'x', "0123456789abcdef"[id >> 4], "0123456789abcdef"[id & 15], '.'};
    uint32_t len = 4, tens = 1;
    if (nth > 1) {
        while (nth / tens >= 10) tens *= 10;
        for (len = 5; tens && len < sizeof name; tens /= 10) name[len++] = (char)('0' + nth / tens % 10);
    }
    gw_str(out, name, len);
}

static bool has_raw(const extras *e) { return e->raw || e->rest; }

/* The pair `extras_raw`: extras this codec gives no meaning, by id; `rest` is what follows RAW_MOST of them, or was no
 * extra at all. */
static void write_extras_raw(gw_out *out, const extras *e) {
    static uint32_t times[256]; /* of an id: valid where its bit in `seen` is set */
    uint32_t seen[8] = {0};
    extras scratch = {0};
    gw_key(out, "extras_raw"); gw_map(out, e->raw + (e->rest != 0));
    for (uint32_t i = 0; i < e->len; i += 2u + e->at[i + 1]) {
        if (known_extra(&scratch, e->at + i)) continue;
        uint8_t id = e->at[i];
        times[id] = seen[id / 32] >> (id % 32) & 1 ? times[id] + 1 : 1;
        seen[id / 32] |= 1u << (id % 32);
        write_extra_name(out, id, times[id]);
        gw_hex(out, e->at + i + 2, e->at[i + 1]);
    }
    if (e->rest) {
        gw_key(out, "rest"); gw_hex(out, e->at + e->len, e->rest);
    }
}

/* ---- Time ------------------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t year, month, day, hour, minute, second;
} calendar;

static int32_t days_in(int32_t year, int32_t month) {
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && year % 4 == 0 ? 29 : days[month - 1]; /* 2000 to 2099: every fourth year leaps */
}

/* Two decimal digits, or -1. */
static int32_t bcd(uint8_t byte) { return byte >> 4 > 9 || (byte & 15) > 9 ? -1 : (byte >> 4) * 10 + (byte & 15); }

/* YYMMDDhhmmss in GMT+8 to UTC. False when it is no date of the calendar. */
static bool read_time(calendar *c, const uint8_t *bytes) {
    *c = (calendar){2000 + bcd(bytes[0]), bcd(bytes[1]), bcd(bytes[2]), bcd(bytes[3]), bcd(bytes[4]), bcd(bytes[5])};
    if (c->year < 2000 || c->month < 1 || c->month > 12 || c->day < 1 || c->day > days_in(c->year, c->month)) return false;
    if (c->hour < 0 || c->hour > 23 || c->minute < 0 || c->minute > 59 || c->second < 0 || c->second > 59) return false;
    c->hour -= GMT_PLUS_HOURS;
    if (c->hour >= 0) return true;
    c->hour += 24;
    if (--c->day) return true;
    if (!--c->month) {
        c->month = 12;
        c->year--;
    }
    c->day = days_in(c->year, c->month);
    return true;
}

/* Days since 1970-01-01 from years that begin in March, so that the leap day comes last. */
static int64_t epoch_ms(const calendar *c) {
    int32_t year = c->year - (c->month <= 2), month = (c->month + 9) % 12;
    int64_t days = 365 * (int64_t)year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + c->day - 719469;
    return (((days * 24 + c->hour) * 60 + c->minute) * 60 + c->second) * 1000;
}

static void two_digits(char *to, int32_t v) {
    to[0] = (char)('0' + v / 10);
    to[1] = (char)('0' + v % 10);
}

static void write_rfc3339(gw_out *out, const calendar *c) {
    char text[] = "0000-00-00T00:00:00Z";
    two_digits(text, c->year / 100);
    two_digits(text + 2, c->year % 100);
    two_digits(text + 5, c->month);
    two_digits(text + 8, c->day);
    two_digits(text + 11, c->hour);
    two_digits(text + 14, c->minute);
    two_digits(text + 17, c->second);
    gw_str(out, text, TIME_TEXT);
}

/* ---- One location ----------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *bytes;
    bool has_time;
    calendar time;
    extras extras;
} location;

/* `len` is at least LOCATION_BYTES. */
static location read_location(const uint8_t *bytes, uint32_t len) {
    location l = {.bytes = bytes, .extras = read_extras(bytes + LOCATION_BYTES, len - LOCATION_BYTES)};
    l.has_time = read_time(&l.time, bytes + 22);
    return l;
}

static uint32_t field_pairs(const location *l) {
    const extras *e = &l->extras;
    return FIXED_PAIRS + (e->mileage != NULL) + (e->rssi != NULL) + (e->satellites != NULL);
}

static double degrees(uint32_t millionths, bool negative) { return (negative ? -1.0 : 1.0) * (millionths / 1e6); }

static void write_fields(gw_out *out, const location *l) {
    const uint8_t *b = l->bytes;
    const extras *e = &l->extras;
    uint32_t status = gw_be32(b + 4);
    gw_key(out, "alarm"); gw_uint(out, gw_be32(b));
    gw_key(out, "status"); gw_uint(out, status);
    gw_key(out, "acc_on"); gw_bool(out, status & ACC_ON);
    gw_key(out, "positioned"); gw_bool(out, status & POSITIONED);
    gw_key(out, "latitude"); gw_f64(out, degrees(gw_be32(b + 8), status & SOUTH));
    gw_key(out, "longitude"); gw_f64(out, degrees(gw_be32(b + 12), status & WEST));
    gw_key(out, "altitude_m"); gw_uint(out, gw_be16(b + 16));
    gw_key(out, "speed_km_h"); gw_f64(out, gw_be16(b + 18) / 10.0);
    gw_key(out, "direction_deg"); gw_uint(out, gw_be16(b + 20));
    gw_key(out, "time");
    if (l->has_time) write_rfc3339(out, &l->time);
    else gw_nil(out);
    if (e->mileage) { gw_key(out, "mileage_km"); gw_f64(out, gw_be32(e->mileage) / 10.0); }
    if (e->rssi) { gw_key(out, "rssi"); gw_uint(out, *e->rssi); }
    if (e->satellites) { gw_key(out, "satellites"); gw_uint(out, *e->satellites); }
    gw_key(out, "extras_well_formed"); gw_bool(out, e->well_formed);
}

/* The fields and the raw extras as one map. */
static void write_location(gw_out *out, const location *l) {
    gw_map(out, field_pairs(l) + has_raw(&l->extras));
    write_fields(out, l);
    if (has_raw(&l->extras)) write_extras_raw(out, &l->extras);
}

static void write_point_head(gw_out *out, const location *l) {
    gw_map(out, 2);
    gw_key(out, "at");
    if (l->has_time) gw_int(out, epoch_ms(&l->time));
    else gw_nil(out);
    gw_key(out, "values");
}

/* ---- Messages --------------------------------------------------------------------------------------------------- */

/* The pairs `points` and `value` of a message with one location; `reply` is the serial it answers, or NULL. */
static void write_one(gw_out *out, const message *m, const location *l, const uint16_t *reply) {
    bool raw = has_raw(&l->extras);
    gw_key(out, "points"); gw_array(out, 1);
    write_point_head(out, l);
    gw_map(out, field_pairs(l) + raw);
    uint8_t *fields = gw_mark(out);
    write_fields(out, l);
    uint8_t *raws = gw_mark(out);
    if (raw) write_extras_raw(out, &l->extras);
    uint8_t *end = gw_mark(out);
    gw_key(out, "value"); gw_map(out, header_value_pairs(m) + 1u + raw + (reply != NULL));
    write_header_value(out, m);
    if (reply) {
        gw_key(out, "reply"); gw_map(out, 1);
        gw_key(out, "serial"); gw_uint(out, *reply);
    }
    gw_key(out, "location"); gw_map(out, field_pairs(l));
    gw_raw(out, fields, (size_t)(raws - fields));
    gw_raw(out, raws, (size_t)(end - raws));
}

static int32_t decode_location_answer(gw_out *out, const message *m) {
    if (m->body_len < 2 + LOCATION_BYTES) return decode_raw(out, m);
    location l = read_location(m->body + 2, m->body_len - 2);
    uint16_t answered = gw_be16(m->body);
    write_item(out, m, "reply", 4);
    gw_key(out, "reply_to"); gw_uint(out, answered);
    gw_key(out, "ok"); gw_bool(out, true);
    write_one(out, m, &l, &answered);
    return GW_WRITTEN;
}

/* 0x0200, and 0x0201 and 0x0500, which answer a command with a location. */
int32_t decode_location(gw_out *out, const message *m) {
    if (m->id != LOCATION) return decode_location_answer(out, m);
    if (m->body_len < LOCATION_BYTES) return decode_raw(out, m);
    location l = read_location(m->body, m->body_len);
    write_item(out, m, "report", 3);
    write_ack(out, m, "general_reply", RESULT_OK);
    write_one(out, m, &l, NULL);
    return GW_WRITTEN;
}

/* Locations that follow each other, each behind its length. */
typedef struct {
    const uint8_t *at;
    uint32_t left;
    uint32_t len_bytes; /* width of the length */
    bool lengths_hold;  /* they lead from link to link, so that one may be passed over by its length */
} chain;

/* Take one link, whatever its length; the last is clipped to what is there. NULL at the end. */
static const uint8_t *take_link(chain *c, uint32_t *len) {
    if (c->left < c->len_bytes) return NULL;
    const uint8_t *link = c->at + c->len_bytes;
    *len = c->len_bytes == 1 ? c->at[0] : gw_be16(c->at);
    c->left -= c->len_bytes;
    if (*len > c->left) *len = c->left;
    c->at = link + *len;
    c->left -= *len;
    return link;
}

/* The next location; NULL at the end or where the chain breaks. */
static const uint8_t *next_link(chain *c, uint32_t *len) {
    const uint8_t *link;
    do link = take_link(c, len);
    while (link && *len < LOCATION_BYTES && c->lengths_hold);
    return link && *len >= LOCATION_BYTES ? link : NULL;
}

static uint32_t count_links(chain c) {
    uint32_t count = 0, len;
    while (next_link(&c, &len)) count++;
    return count;
}

/* What the lengths alone say. */
typedef struct {
    uint32_t links;
    bool exact; /* the last link ends where the body does, and each has room for a location */
    bool ends;  /* the last link ends where the body does */
} survey;

static survey survey_of(chain c) {
    survey s = {.exact = true, .ends = true};
    const uint8_t *link;
    uint32_t len;
    while ((link = take_link(&c, &len))) {
        uint32_t said = c.len_bytes == 1 ? link[-1] : gw_be16(link - 2);
        s.links++;
        s.ends = s.ends && said == len;
        s.exact = s.exact && len >= LOCATION_BYTES;
    }
    s.ends = s.ends && !c.left;
    s.exact = s.exact && s.ends;
    return s;
}

static void write_points(gw_out *out, chain c, uint32_t count) {
    const uint8_t *link;
    uint32_t len;
    gw_key(out, "points"); gw_array(out, count);
    while ((link = next_link(&c, &len))) {
        location l = read_location(link, len);
        write_point_head(out, &l);
        write_location(out, &l);
    }
}

static void write_locations(gw_out *out, chain c, uint32_t count) {
    const uint8_t *link;
    uint32_t len;
    gw_key(out, "locations"); gw_array(out, count);
    while ((link = next_link(&c, &len))) {
        location l = read_location(link, len);
        write_location(out, &l);
    }
}

/* 0x0704: count, kind, and locations behind 2-byte lengths; of a damaged one, every location that can be told.
 * 0x0210, of some makers: locations behind 1-byte lengths; since makers differ, it is that or raw. */
int32_t decode_location_batch(gw_out *out, const message *m) {
    bool standard = m->id == LOCATION_BATCH;
    uint32_t head = standard ? 3 : 0;
    if (m->body_len < head) return decode_raw(out, m);
    chain c = {.at = m->body + head, .left = m->body_len - head, .len_bytes = standard ? 2 : 1};
    survey found = survey_of(c);
    uint32_t declared = standard ? gw_be16(m->body) : found.links;
    c.lengths_hold = found.ends || found.links == declared;
    uint32_t count = count_links(c);
    if (!count || (!standard && !found.exact)) return decode_raw(out, m);
    write_item(out, m, "report", 3);
    write_ack(out, m, "general_reply", RESULT_OK);
    write_points(out, c, count);
    gw_key(out, "value"); gw_map(out, header_value_pairs(m) + 2);
    write_header_value(out, m);
    gw_key(out, "batch"); gw_map(out, 3);
    gw_key(out, "count"); gw_uint(out, declared);
    gw_key(out, "type");
    if (standard) gw_uint(out, m->body[2]);
    else gw_nil(out);
    gw_key(out, "well_formed"); gw_bool(out, found.exact && count == declared);
    write_locations(out, c, count);
    return GW_WRITTEN;
}
