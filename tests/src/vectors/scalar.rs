//! Arithmetic modulo the order of Ed25519's base point, for signatures that no signer makes.
//!
//! Slow, and in variable time: its secrets are published with the source.

use sha2::{Digest as _, Sha512};

/// The order of the base point, 2²⁵² + 27742317777372353535851937790883648493, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// A signature whose `R` is the neutral point and whose equation holds: `S` is `k · a`, without a nonce.
pub(crate) fn signature_with_neutral_r(seed: [u8; 32], public_key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    let mut r = [0; 32];
    r[0] = 1;
    let k = Sha512::digest([&r, public_key, message].concat());
    let mut secret: Vec<u8> = Sha512::digest(seed)[..32].to_vec();
    secret[0] &= 0xf8;
    secret[31] = secret[31] & 0x7f | 0x40;
    [r, multiply(&k, &secret)].concat()
}

/// The signature with the order added to its `S`: the equation still holds.
pub(crate) fn with_larger_s(signature: &[u8]) -> Vec<u8> {
    let s = signature[32..].try_into().expect("64 bytes");
    [&signature[..32], &add(s, &ORDER)].concat()
}

fn multiply(a: &[u8], b: &[u8]) -> [u8; 32] {
    let b = reduce(b);
    bits(a).fold([0; 32], |sum, bit| {
        let doubled = reduced(add(&sum, &sum));
        if bit { reduced(add(&doubled, &b)) } else { doubled }
    })
}

fn reduce(bytes: &[u8]) -> [u8; 32] {
    let mut one = [0; 32];
    one[0] = 1;
    bits(bytes).fold([0; 32], |sum, bit| {
        let doubled = reduced(add(&sum, &sum));
        if bit { reduced(add(&doubled, &one)) } else { doubled }
    })
}

/// The bits of a little-endian number, the highest first.
fn bits(bytes: &[u8]) -> impl Iterator<Item = bool> {
    bytes.iter().rev().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
}

/// The sum of two numbers below 2²⁵⁵.
fn add(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let (mut sum, mut carry) = ([0; 32], 0_u16);
    for index in 0..32 {
        let digit = u16::from(a[index]) + u16::from(b[index]) + carry;
        [sum[index], _] = digit.to_le_bytes();
        carry = digit >> 8;
    }
    sum
}

/// A number below twice the order, reduced once.
fn reduced(number: [u8; 32]) -> [u8; 32] {
    if number.iter().rev().lt(ORDER.iter().rev()) {
        return number;
    }
    let (mut rest, mut borrow) = ([0; 32], 0_i16);
    for index in 0..32 {
        let digit = i16::from(number[index]) - i16::from(ORDER[index]) - borrow;
        [rest[index], _] = digit.to_le_bytes();
        borrow = i16::from(digit < 0);
    }
    rest
}
