/* SPDX-License-Identifier: Apache-2.0
 *
 * A parsed body as the answer: elements that the standard names by its key and type, the others as they are in `other`.
 */
#include "gb28181.h"

/* The children of one name: told together, as one value or as a list of them. */
typedef struct { const field *field; const node *first; uint32_t count, invalid; } group;

enum { APART = FIELDS_MOST }; /* the group of a child that is told on its own */
typedef struct { group of[FIELDS_MOST]; uint32_t count, known, invalid; const node *list; } groups;

static int32_t write_value(gw_out *out, const node *n, const field *f);

/* ---- Single values ----------------------------------------------------------------------------------------------- */

/* Whether an element without children says what its type asks for; nothing is told as nil. */
static bool is_valid(const node *n, const field *f) {
    int64_t whole;
    double number;
    char time[TIME_MOST];
    uint32_t len;
    if (!n->text_len || first_element(n)) return true;
    switch (f->type) {
    case AS_WHOLE: return read_whole(n->text, n->text_len, &whole);
    case AS_NUMBER: return read_decimal(n->text, n->text_len, &number);
    case AS_TIME: return read_time(n->text, n->text_len, time, &len);
    default: return true;
    }
}

static void write_leaf(gw_out *out, const node *n, field_type type) {
    int64_t whole;
    double number;
    char time[TIME_MOST];
    uint32_t len;
    if (type == AS_WHOLE && read_whole(n->text, n->text_len, &whole)) gw_int(out, whole);
    else if (type == AS_NUMBER && read_decimal(n->text, n->text_len, &number)) gw_f64(out, number);
    else if (type == AS_TIME && read_time(n->text, n->text_len, time, &len)) gw_str(out, time, len);
    else if (type == AS_GROUP && !n->text_len) gw_map(out, 0);
    else if (type == AS_WHOLE || type == AS_NUMBER || type == AS_TIME) gw_nil(out);
    else gw_str(out, n->text, n->text_len);
}

/* ---- Lists ------------------------------------------------------------------------------------------------------- */

static const node *num_of(const node *n) {
    for (uint32_t place = n->child; place; place = node_at(place)->next)
        if (node_at(place)->is_attribute) return node_at(place);
    return NULL;
}

static bool is_item(const node *n) { return n->name_len == 4 && memcmp(n->name, "Item", 4) == 0; }

static bool is_list(const node *n, const field *f) {
    bool named = num_of(n) || (f && f->type == AS_LIST);
    if (named || !first_element(n)) return named && !n->text_len;
    for (const node *child = first_element(n); child; child = next_element(child))
        if (!is_item(child)) return false;
    return true;
}

static int32_t write_items(gw_out *out, const node *list) {
    static const field item = {.type = AS_GROUP};
    uint32_t count = 0;
    for (const node *n = first_element(list); n; n = next_element(n)) count++;
    if (count > ITEMS_MOST) return gw_error(GW_BAD_CONFIG, "body: a list has more than 10000 items");
    gw_array(out, count);
    for (const node *n = first_element(list); n; n = next_element(n)) GW_TRY(write_value(out, n, &item));
    return GW_WRITTEN;
}

/* ---- Elements with children -------------------------------------------------------------------------------------- */

/* Keepalive lists the devices that are out of order as many DeviceID in Info. */
static const field faulty_devices = {"DeviceID", "device_ids", AS_TEXT};

static bool has_key(const field *f, const char *key) {
    return f && strlen(f->key) == strlen(key) && memcmp(f->key, key, strlen(key)) == 0;
}

/* Fields are told apart by key: two spellings of one are one. */
static bool is_of(const group *g, const field *f, const node *n) {
    if (f || g->field) return f && has_key(g->field, f->key);
    return g->first->name_len == n->name_len && memcmp(g->first->name, n->name, n->name_len) == 0;
}

static int32_t add_to_groups(groups *all, const field *f, node *n) {
    uint32_t i = 0;
    while (i < all->count && !is_of(&all->of[i], f, n)) i++;
    if (i == FIELDS_MOST) return gw_error(GW_BAD_CONFIG, "body: an element has more than 64 different children");
    if (i == all->count) {
        all->of[all->count++] = (group){.field = f, .first = n};
        all->known += f != NULL;
    }
    n->group = (uint8_t)i;
    all->of[i].count++;
    if (f && !is_valid(n, f)) {
        all->of[i].invalid++;
        all->invalid++;
    }
    return GW_WRITTEN;
}

/* With `list`, the first child that is a list is set apart. */
static int32_t collect(groups *all, const node *parent, bool list) {
    bool in_info = has_key(field_named(parent->name, parent->name_len), "info");
    for (node *n = first_element(parent); n; n = next_element(n)) {
        const field *f = field_named(n->name, n->name_len);
        if (in_info && has_key(f, "device_id")) f = &faulty_devices;
        if (list && !all->list && is_list(n, f)) {
            all->list = n;
            n->group = APART;
        } else {
            GW_TRY(add_to_groups(all, f, n));
        }
    }
    return GW_WRITTEN;
}

static int32_t write_group(gw_out *out, const group *g) {
    if (g->count == 1 && g->field != &faulty_devices) return write_value(out, g->first, g->field);
    gw_array(out, g->count);
    for (const node *n = g->first; n; n = next_element(n))
        if (n->group == g->first->group) GW_TRY(write_value(out, n, g->field));
    return GW_WRITTEN;
}

/* The texts that are not what their field asks for, by key; of a field that comes often, the last one. */
static void write_invalid(gw_out *out, const groups *all) {
    uint32_t count = 0;
    gw_key(out, "invalid");
    uint8_t *head = gw_map_open(out);
    for (uint32_t i = 0; i < all->count; i++) {
        const group *g = &all->of[i];
        const node *wrong = NULL;
        for (const node *n = g->invalid ? g->first : NULL; n; n = next_element(n))
            if (n->group == i && !is_valid(n, g->field)) wrong = n;
        if (!wrong) continue;
        gw_cstr(out, g->field->key);
        gw_str(out, wrong->text, wrong->text_len);
        count++;
    }
    gw_close(out, head, count);
}

static uint32_t pairs_of(const groups *all) {
    return all->known + (all->invalid > 0) + (all->count > all->known);
}

static int32_t write_groups(gw_out *out, const groups *all) {
    for (uint32_t i = 0; i < all->count; i++)
        if (all->of[i].field) {
            gw_cstr(out, all->of[i].field->key);
            GW_TRY(write_group(out, &all->of[i]));
        }
    if (all->invalid) write_invalid(out, all);
    if (all->count == all->known) return GW_WRITTEN;
    gw_key(out, "other");
    gw_map(out, all->count - all->known);
    for (uint32_t i = 0; i < all->count; i++)
        if (!all->of[i].field) {
            gw_str(out, all->of[i].first->name, all->of[i].first->name_len);
            GW_TRY(write_group(out, &all->of[i]));
        }
    return GW_WRITTEN;
}

static int32_t write_value(gw_out *out, const node *n, const field *f) {
    groups all = {.count = 0};
    if (is_list(n, f)) return write_items(out, n);
    if (!first_element(n)) {
        write_leaf(out, n, f ? f->type : AS_TEXT);
        return GW_WRITTEN;
    }
    GW_TRY(collect(&all, n, false));
    gw_map(out, pairs_of(&all));
    return write_groups(out, &all);
}

/* ---- The body ---------------------------------------------------------------------------------------------------- */

static bool is_told(const groups *all, const char *key) {
    for (uint32_t i = 0; i < all->count; i++)
        if (has_key(all->of[i].field, key)) return true;
    return false;
}

static bool is_root(const node *n) {
    static const char *const roots[] = {"Notify", "Response", "Query", "Control"};
    for (uint32_t i = 0; i < 4; i++)
        if (n->name_len == strlen(roots[i]) && memcmp(n->name, roots[i], n->name_len) == 0) return true;
    return false;
}

static int32_t write_list(gw_out *out, const node *list) {
    const node *num = num_of(list);
    gw_key(out, "list"); gw_str(out, list->name, list->name_len);
    gw_key(out, "num");
    if (num) write_leaf(out, num, AS_WHOLE);
    else gw_nil(out);
    gw_key(out, "items");
    return write_items(out, list);
}

int32_t write_body(gw_out *out, const node *root, charset c, uint32_t replaced) {
    groups all = {.count = 0};
    if (!is_root(root)) return gw_error(GW_UNKNOWN_TYPE, "body: the root must be Notify, Response, Query or Control");
    GW_TRY(collect(&all, root, true));
    if (!is_told(&all, "cmd_type")) return gw_error(GW_UNKNOWN_TYPE, "body: has no CmdType");
    bool no_sn = !is_told(&all, "sn"), no_device = !is_told(&all, "device_id");
    gw_map(out, 3 + no_sn + no_device + pairs_of(&all) + (all.list ? 3 : 0));
    gw_key(out, "root"); gw_str(out, root->name, root->name_len);
    gw_key(out, "charset"); gw_cstr(out, c == UTF_8 ? "utf-8" : "gb18030");
    gw_key(out, "replaced"); gw_uint(out, replaced);
    if (no_sn) { gw_key(out, "sn"); gw_nil(out); }
    if (no_device) { gw_key(out, "device_id"); gw_nil(out); }
    GW_TRY(write_groups(out, &all));
    return all.list ? write_list(out, all.list) : GW_WRITTEN;
}
