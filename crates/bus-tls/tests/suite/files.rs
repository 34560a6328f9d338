//! Faults of the files and of the PEM text in them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use bus_tls::{FileKind, KeyPermissions, TlsError, TlsIdentity};
use rcgen::KeyPair;

use crate::bench::{AGENT, Bench, assert_refused, component};

#[test]
fn a_missing_certificate_is_refused() {
    let bench = Bench::new();
    fs::remove_file(bench.path("agent.crt")).unwrap();
    assert_refused!(bench, TlsError::Missing { kind: FileKind::Certificate, .. }, "agent.crt", "correct the path");
}

#[test]
fn a_missing_key_is_refused() {
    let bench = Bench::new();
    fs::remove_file(bench.path("agent.key")).unwrap();
    assert_refused!(bench, TlsError::Missing { kind: FileKind::PrivateKey, .. }, "agent.key", "correct the path");
}

#[test]
fn a_missing_trust_root_is_refused() {
    let bench = Bench::new();
    fs::remove_file(bench.path("ca.crt")).unwrap();
    assert_refused!(bench, TlsError::Missing { kind: FileKind::TrustRoot, .. }, "ca.crt", "correct the path");
}

#[test]
fn a_missing_revocation_list_is_refused() {
    let bench = Bench::new();
    let options = bench.options().crl(bench.path("crl.pem"));
    assert_refused!(bench, options, TlsError::Missing { kind: FileKind::Crl, .. }, "crl.pem", "correct the path");
}

#[test]
fn a_directory_is_refused() {
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        let bench = Bench::new();
        fs::remove_file(bench.path(file)).unwrap();
        fs::create_dir(bench.path(file)).unwrap();
        assert_refused!(bench, TlsError::IsDirectory { .. }, file, "give the path of the file in it");
    }
}

#[test]
fn an_unreadable_file_is_refused() {
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        let bench = Bench::new();
        // A link to itself cannot be read by anybody, not even by root.
        fs::remove_file(bench.path(file)).unwrap();
        symlink(bench.path(file), bench.path(file)).unwrap();
        assert_refused!(bench, TlsError::Unreadable { .. }, file, "let the user that runs this program read it");
    }
}

#[test]
fn a_file_that_its_user_may_not_read_is_refused() {
    let bench = Bench::new();
    fs::set_permissions(bench.path("agent.key"), fs::Permissions::from_mode(0o000)).unwrap();
    // Permission bits do not bind root, for whom there is nothing to be seen here.
    if fs::read(bench.path("agent.key")).is_err() {
        let error = bench.load().unwrap_err();
        assert!(matches!(error, TlsError::Unreadable { .. }), "{error:?}");
        assert!(error.to_string().contains("let the user that runs this program read it"));
    }
}

#[test]
fn a_device_is_refused_without_reading_it() {
    let bench = Bench::new();
    fs::remove_file(bench.path("agent.crt")).unwrap();
    symlink("/dev/zero", bench.path("agent.crt")).unwrap();
    assert_refused!(bench, TlsError::Unreadable { .. }, "agent.crt", "not a regular file");
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_pipe_is_refused_without_waiting_for_a_writer() {
    let bench = Bench::new();
    fs::remove_file(bench.path("agent.crt")).unwrap();
    make_pipe(&bench.path("agent.crt"));
    assert_refused!(bench, TlsError::Unreadable { .. }, "agent.crt", "not a regular file");
}

#[test]
fn a_pipe_that_takes_a_files_place_at_any_moment_is_not_waited_for() {
    let bench = Bench::new();
    let (certificate, pipe, spare) = (bench.path("agent.crt"), bench.path("pipe"), bench.path("spare"));
    fs::copy(&certificate, &spare).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                make_pipe(&pipe);
                fs::rename(&pipe, &certificate).unwrap();
                fs::copy(&spare, bench.path("copy")).unwrap();
                fs::rename(bench.path("copy"), &certificate).unwrap();
            }
        });
        for _ in 0..500 {
            match bench.load() {
                Ok(_) | Err(TlsError::Unreadable { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_file_over_one_mebibyte_is_refused() {
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        let bench = Bench::new();
        bench.write(file, vec![b'\n'; (1 << 20) + 1]);
        assert_refused!(bench, TlsError::TooLarge { max: 1_048_576, .. }, file, "leads to the right file");
    }
}

#[test]
fn an_empty_file_is_refused() {
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        for content in ["", " \r\n\t\n"] {
            let bench = Bench::new();
            bench.write(file, content);
            assert_refused!(bench, TlsError::Empty { .. }, file, "write the PEM text");
        }
    }
}

#[test]
fn der_is_refused_and_its_conversion_is_told() {
    let bench = Bench::new();
    let key = KeyPair::generate().unwrap();
    let certificate = bench.issue_for(&component(AGENT), &key);
    bench.write("agent.crt", certificate.der());
    assert_refused!(bench, TlsError::Der { .. }, "agent.crt", "openssl x509 -inform der");
    bench.write("agent.crt", certificate.pem());
    bench.write("agent.key", key.serialized_der());
    assert_refused!(bench, TlsError::Der { .. }, "agent.key", "openssl pkey -inform der");
    bench.write("agent.key", key.serialize_pem());
    bench.write("ca.crt", bench.ca.certificate.der());
    assert_refused!(bench, TlsError::Der { .. }, "ca.crt", "openssl x509 -inform der");
}

#[test]
fn an_ed25519_key_in_der_is_recognised() {
    let bench = Bench::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    bench.write("agent.key", key.serialized_der());
    assert_refused!(bench, TlsError::Der { .. }, "agent.key", "openssl pkey -inform der");
}

#[test]
fn text_that_is_not_pem_is_refused() {
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        let bench = Bench::new();
        bench.write(file, "no certificate here\n");
        assert_refused!(bench, TlsError::NotPem { .. }, file, "-----BEGIN ");
    }
}

#[test]
fn a_damaged_pem_block_is_refused() {
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        let bench = Bench::new();
        let text = fs::read_to_string(bench.path(file)).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        for damaged in [
            format!("{first}\n*{rest}"),
            text.lines().take(2).collect::<Vec<_>>().join("\n"),
            text.replacen("-----\n", "\n", 1),
        ] {
            bench.write(file, damaged);
            assert_refused!(bench, TlsError::DamagedPem { .. }, file, "copy the file again");
        }
    }
}

#[test]
fn a_key_in_place_of_the_certificate_is_refused() {
    let bench = Bench::new();
    bench.write("agent.crt", fs::read(bench.path("agent.key")).unwrap());
    assert_refused!(bench, TlsError::WrongPemKind { .. }, "agent.crt", "the paths are not mixed up");
    assert!(bench.load().unwrap_err().to_string().contains("holds PRIVATE KEY"));
}

#[test]
fn a_certificate_in_place_of_the_revocation_list_is_refused() {
    let bench = Bench::new();
    let options = bench.options().crl(bench.path("ca.crt"));
    assert_refused!(bench, options, TlsError::WrongPemKind { kind: FileKind::Crl, .. }, "ca.crt", "X509 CRL");
}

#[test]
fn a_file_without_a_key_is_refused() {
    let bench = Bench::new();
    bench.write("agent.key", fs::read(bench.path("agent.crt")).unwrap());
    assert_refused!(bench, TlsError::NoKey { .. }, "agent.key", "the paths are not mixed up");
}

#[test]
fn several_keys_are_refused() {
    let bench = Bench::new();
    let text = fs::read_to_string(bench.path("agent.key")).unwrap();
    bench.write("agent.key", format!("{text}{text}"));
    assert_refused!(bench, TlsError::SeveralKeys { count: 2, .. }, "agent.key", "leave only the one");
}

#[test]
fn an_encrypted_key_is_refused_and_its_decryption_is_told() {
    for key in [include_str!("fixtures/encrypted-pkcs8.pem"), include_str!("fixtures/encrypted-legacy.pem")] {
        let bench = Bench::new();
        for text in [key.to_owned(), key.replace('\n', "\r\n")] {
            bench.write("agent.key", text);
            assert_refused!(bench, TlsError::EncryptedKey { .. }, "agent.key", "openssl pkey -in");
        }
    }
}

#[test]
fn a_key_that_cannot_be_used_is_refused() {
    let bench = Bench::new();
    bench.write("agent.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert_refused!(bench, TlsError::UnusableKey { .. }, "agent.key", "make a P-256");
}

#[test]
fn a_key_that_does_not_match_is_refused() {
    let bench = Bench::new();
    bench.write("agent.key", KeyPair::generate().unwrap().serialize_pem());
    assert_refused!(bench, TlsError::KeyMismatch { .. }, "agent.key", "issued together");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    for mode in [0o640, 0o604, 0o660, 0o777] {
        let bench = Bench::new();
        fs::set_permissions(bench.path("agent.key"), fs::Permissions::from_mode(mode)).unwrap();
        assert_refused!(bench, TlsError::ExposedKey { .. }, "agent.key", "chmod 600");
    }
}

#[test]
fn a_key_among_certificates_that_others_can_read_is_refused() {
    for file in ["agent.crt", "ca.crt"] {
        let bench = Bench::new();
        let both =
            fs::read_to_string(bench.path(file)).unwrap() + &fs::read_to_string(bench.path("agent.key")).unwrap();
        bench.write(file, both);
        bench.load().unwrap();
        fs::set_permissions(bench.path(file), fs::Permissions::from_mode(0o644)).unwrap();
        assert_refused!(bench, TlsError::KeyAmongCertificates { .. }, file, "remove the key from it");
    }
}

#[test]
fn an_openssh_key_is_refused_and_its_conversion_is_told() {
    let bench = Bench::new();
    bench.write("agent.key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n");
    assert_refused!(bench, TlsError::OpenSshKey { .. }, "agent.key", "ssh-keygen -p -m PKCS8");
}

#[test]
fn a_key_that_others_can_read_is_accepted_explicitly() {
    let bench = Bench::new();
    fs::set_permissions(bench.path("agent.key"), fs::Permissions::from_mode(0o644)).unwrap();
    TlsIdentity::load(bench.options().key_permissions(KeyPermissions::Shared)).unwrap();
}

#[test]
fn no_damaged_byte_makes_loading_panic_or_changes_the_identity() {
    let bench = Bench::new();
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        let text = fs::read(bench.path(file)).unwrap();
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1 << (at % 8);
            bench.write(file, &damaged);
            // Some bytes mean nothing: line ends, and the last bits of the base64 text.
            if let Ok(identity) = bench.load() {
                assert_eq!(identity.principal().to_string(), AGENT);
            }
        }
        bench.write(file, &text);
    }
    bench.load().unwrap();
}
