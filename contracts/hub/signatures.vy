#pragma version 0.4.3
"""
@title Signatures
@license Apache-2.0
@notice Who signed a digest: a contract says so itself (ERC-1271), anyone else by ECDSA.
"""

from . import state

MAGIC: constant(bytes32) = 0x1626ba7e00000000000000000000000000000000000000000000000000000000
# Half the order of secp256k1, 0x7fff…20a0.
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
COMPACT_S_MASK: constant(uint256) = 2**255 - 1


@internal
@view
def _verify(identity: address, digest: bytes32, sign: Bytes[state.SIGN_CAP]) -> bool:
    """
    @dev Whether `identity` signed `digest`. An account with code answers by ERC-1271 only, and a revert is a no. For others
         `sign` is r || s || v or r || vs (EIP-2098); the upper half of s is nobody's (EIP-2), and nobody is nobody.
         Reverts with `invalid-signature-format` for any other length.
    """
    if identity.is_contract:
        success: bool = False
        response: Bytes[32] = b""
        success, response = raw_call(
            identity,
            abi_encode(digest, sign, method_id=method_id("isValidSignature(bytes32,bytes)")),
            max_outsize=32,
            is_static_call=True,
            revert_on_failure=False,
        )
        return success and len(response) == 32 and convert(response, bytes32) == MAGIC

    s: uint256 = 0
    v: uint256 = 0
    if len(sign) == 65:
        s = extract32(sign, 32, output_type=uint256)
        v = extract32(sign, 33, output_type=uint256) & 255
    elif len(sign) == 64:
        compact: uint256 = extract32(sign, 32, output_type=uint256)
        s = compact & COMPACT_S_MASK
        v = 27 + (compact >> 255)
    else:
        raise "invalid-signature-format"
    if s > HALF_ORDER:
        return False
    signer: address = ecrecover(digest, v, extract32(sign, 0, output_type=uint256), s)
    return signer != empty(address) and signer == identity


@internal
@pure
def _message(digest: bytes32) -> bytes32:
    """
    @dev What `personal_sign` of 32 bytes signs (EIP-191).
    """
    return keccak256(concat(b"\x19Ethereum Signed Message:\n32", digest))
