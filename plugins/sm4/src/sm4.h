/* SPDX-License-Identifier: Apache-2.0
 *
 * sm4.h - the block cipher of GB/T 32907-2016 and its modes ECB, CBC (GB/T 17964-2021) and GCM (NIST SP 800-38D).
 */
#ifndef SM4_H
#define SM4_H

#define GW_IN_BYTES (2u * 1024u * 1024u)
#define GW_OUT_BYTES (GW_IN_BYTES + 1024u) /* whatever fits the input fits the output with padding, IV and tag */
#include "gw1_args.h"

enum { BLOCK = 16, KEY_BYTES = 16, ROUNDS = 32, NONCE_BYTES = 12, TAG_LEAST = 12, TAG_MOST = 16 };

/* cipher.c: one block */
typedef struct { uint32_t round[ROUNDS]; } sm4_key;
void key_for_encryption(sm4_key *key, const uint8_t bytes[KEY_BYTES]);
void key_for_decryption(sm4_key *key, const uint8_t bytes[KEY_BYTES]);
void crypt_block(const sm4_key *key, const uint8_t in[BLOCK], uint8_t out[BLOCK]);

/* modes.c: whole messages. `out` has room for what the comment says and may not overlap `in`; a NULL iv is ECB. */

/* Bytes of the message with its padding, a multiple of 16 either way. */
uint32_t padded_len(uint32_t len, bool pkcs7);
/* Encrypts the whole blocks of `in` and, with pkcs7, a last one made of the rest; out: padded_len bytes. */
void blocks_encrypt(const sm4_key *key, const uint8_t *iv, bool pkcs7, const uint8_t *in, uint32_t len, uint8_t *out);
/* Length of the padding of a message (len a multiple of 16, above 0), read from its last block; 0 where it is none. */
uint32_t padding_of(const sm4_key *key, const uint8_t *iv, const uint8_t *in, uint32_t len);
/* The first `out_len` bytes of the plaintext. */
void blocks_decrypt(const sm4_key *key, const uint8_t *iv, const uint8_t *in, uint8_t *out, uint32_t out_len);

typedef struct {
    const uint8_t *nonce; /* 12 bytes */
    const uint8_t *aad;
    uint32_t aad_len;
} gcm;
/* Encrypts and decrypts alike: out, len bytes. */
void gcm_crypt(const sm4_key *key, const gcm *g, const uint8_t *in, uint32_t len, uint8_t *out);
void gcm_tag(const sm4_key *key, const gcm *g, const uint8_t *ciphertext, uint32_t len, uint8_t tag[TAG_MOST]);

#endif
