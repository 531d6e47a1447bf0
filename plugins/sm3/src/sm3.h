/* SPDX-License-Identifier: Apache-2.0
 *
 * sm3.h - the hash function of GB/T 32905-2016, fed in pieces, and HMAC over it (RFC 2104).
 */
#ifndef SM3_H
#define SM3_H

#define GW_IN_BYTES (1024u * 1024u)
#define GW_OUT_BYTES (64u * 1024u)
#include "gw1_args.h"

enum { SM3_BLOCK = 64, SM3_DIGEST = 32 };

typedef struct {
    uint32_t state[8];
    uint64_t bytes;           /* hashed so far, those waiting in `block` included */
    uint8_t block[SM3_BLOCK]; /* begun */
} sm3;

void sm3_begin(sm3 *h);
void sm3_feed(sm3 *h, const uint8_t *data, uint32_t len);
void sm3_end(sm3 *h, uint8_t digest[SM3_DIGEST]);
void sm3_hmac(const uint8_t *key, uint32_t key_len, const uint8_t *data, uint32_t len, uint8_t mac[SM3_DIGEST]);

#endif
