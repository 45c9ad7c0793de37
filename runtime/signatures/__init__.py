"""Signatures: who may give this machine a bundle or a label bank."""

from overflight.runtime.signatures.signature_files import read_signature, split_signed, verify_signed
from overflight.runtime.signatures.trust import Approval

__all__ = ["Approval", "read_signature", "split_signed", "verify_signed"]
