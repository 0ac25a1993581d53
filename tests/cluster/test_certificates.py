"""Proves that a node's certificate is believed by those who have its key, and by nobody else."""

import contextlib
import itertools
import random
import time

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.certificates import authority_of, issuer_of, make_identity, node_of
from mailsecure.cluster.keys import Key, KeyRing
from mailsecure.cluster.link import LinkTls

ONE, TWO = Key(b"1" * 32), Key(b"2" * 32)
rng = random.Random(25)


def identity(node, *keys):
    return make_identity(node, KeyRing(keys), rng.randbytes(32))


def shake(client, server):
    """Let two identities shake hands in memory; return the names that each sees."""
    ends = [
        LinkTls(client).clientConnectionForTLS(None),
        LinkTls(server).serverConnectionForTLS(None),
    ]
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    for _ in range(4):
        for end, other in (ends, reversed(ends)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65536))
    # What a server thinks of a client's certificate comes after the client's handshake.
    ends[1].send(b"x")
    ends[0].bio_write(ends[1].bio_read(65536))
    assert ends[0].recv(1) == b"x"
    assert {end.get_protocol_version_name() for end in ends} == {"TLSv1.3"}
    return [node_of(end.get_peer_certificate().to_cryptography()) for end in ends]


class Certificates(SynchronousTestCase):
    """What is made."""

    def test_authority_is_the_same_everywhere(self):
        """Two nodes make the same authority of the same key, and others of others."""
        self.assertEqual(authority_of(ONE), authority_of(Key(b"1" * 32)))
        self.assertNotEqual(authority_of(ONE).subject, authority_of(TWO).subject)
        self.assertNotEqual(authority_of(ONE).public_key(), authority_of(TWO).public_key())

    def test_names(self):
        """The longest name, and one that is no host's."""
        for name in ("a" * 63, "mx1", "mx-1.example.com"):
            self.assertEqual(node_of(identity(name, ONE).certificate), name)

    def test_no_clock(self):
        """Valid from before any clock to after any."""
        made = identity("a", ONE)
        for certificate in (made.certificate, *made.authorities):
            self.assertEqual(certificate.not_valid_before_utc.year, 1970)
            self.assertEqual(certificate.not_valid_after_utc.year, 9999)

    def test_each_start_has_a_key_of_its_own(self):
        """The seed decides the key and the number; the secret is in none of it."""
        first, second = identity("a", ONE), identity("a", ONE)
        self.assertNotEqual(first.certificate.serial_number, second.certificate.serial_number)
        self.assertNotEqual(first.certificate.public_key(), second.certificate.public_key())

    def test_issuer(self):
        """The first key of the ring signs."""
        made = identity("a", ONE, TWO)
        self.assertTrue(issuer_of(made.certificate, [authority_of(ONE)]))
        self.assertFalse(issuer_of(made.certificate, [authority_of(TWO)]))
        self.assertEqual(len(made.authorities), 2)

    def test_no_name(self):
        """A certificate that names nobody, or several, has no node."""
        common = x509.NameAttribute(NameOID.COMMON_NAME, "a")
        other = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a")
        key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        made = identity("a", ONE).certificate
        for names, node in (([], ""), ([other], ""), ([common, common], ""), ([common], "a")):
            certificate = (
                x509.CertificateBuilder()
                .subject_name(x509.Name(names))
                .issuer_name(made.issuer)
                .public_key(key.public_key())
                .serial_number(1)
                .not_valid_before(made.not_valid_before_utc)
                .not_valid_after(made.not_valid_after_utc)
                .sign(key, None)
            )
            self.assertEqual(node_of(certificate), node)

    def test_quick(self):
        """A few milliseconds, so that a start and a reload are not felt."""
        took = []
        for _ in range(10):
            begin = time.perf_counter()
            identity("a", ONE, TWO)
            took.append(time.perf_counter() - begin)
        self.assertLess(min(took), 0.005)


class Handshakes(SynchronousTestCase):
    """Who believes whom."""

    def test_same_key(self):
        """Both see the other's name."""
        self.assertEqual(shake(identity("a", ONE), identity("b", ONE)), ["b", "a"])

    def test_rotation(self):
        """Every pair of neighbouring steps of a rotation can talk."""
        steps = [(ONE,), (ONE, TWO), (TWO, ONE), (TWO,)]
        for here, there in itertools.pairwise(steps):
            self.assertEqual(shake(identity("a", *here), identity("b", *there)), ["b", "a"])
            self.assertEqual(shake(identity("a", *there), identity("b", *here)), ["b", "a"])

    def test_other_key(self):
        """A stranger is told nothing, on whichever side he is."""
        self.assertRaises(SSL.Error, shake, identity("a", ONE), identity("b", TWO))
        self.assertRaises(SSL.Error, shake, identity("a", TWO), identity("b", ONE))

    def test_not_signed_by_a_node(self):
        """A node cannot make certificates for others."""
        stranger = identity("a", ONE)
        forged = make_identity("b", KeyRing((TWO,)), b"s" * 32)
        self.assertRaises(SSL.Error, shake, forged, stranger)
