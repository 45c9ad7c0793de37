"""Signatures: who may give this machine a bundle or a label bank."""

from overflight.runtime.signatures.doors import open_bank, read_signature, receive_bank, verify_signed
from overflight.runtime.signatures.trust import Approval

__all__ = ["Approval", "open_bank", "read_signature", "receive_bank", "verify_signed"]
