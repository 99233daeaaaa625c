//! Who is trusted: the server's certificate, the client's, and none at all; in front of the lab's Argo CD.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test uses its part of the world")]
mod lab_world;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use lab_world::World;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use towpath_argocd::{ArgoCd, ArgoCdBuilder, Error, Login, RetryPolicy, Secret, WatchEvent, WatchFilter};
use towpath_core::Retry;
use towpath_elements::ErrorKind;

const SOON: Duration = Duration::from_secs(20);

/// An authority of certificates.
type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate with its key.
struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn root(authority: &Authority) -> String {
    pem("CERTIFICATE", authority.der())
}

impl Pair {
    fn signed_by(authority: &Authority, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        Self { certificate, key }
    }

    /// As a server makes itself one where it is given none.
    fn self_signed() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = server("127.0.0.1").self_signed(&key).unwrap();
        Self { certificate, key }
    }

    fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", self.certificate.der())
    }

    fn key_pem(&self) -> String {
        pem("PRIVATE KEY", self.key.serialized_der())
    }

    fn pem(&self) -> String {
        self.certificate_pem() + &self.key_pem()
    }
}

fn server(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn client() -> CertificateParams {
    let mut params = CertificateParams::new(["ci".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Puts TLS in front of a server of plain HTTP, and answers the address; with `clients`, only those whom that authority
/// has signed a certificate for come through.
async fn in_front_of(
    plain: &str,
    pair: &Pair,
    clients: Option<&Authority>,
    tls: &'static SupportedProtocolVersion,
) -> String {
    let builder = ServerConfig::builder_with_protocol_versions(&[tls]);
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(pair.key.serialized_der().to_vec()).unwrap();
    let config = builder
        .with_single_cert(vec![pair.certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plain = plain.strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (acceptor, plain) = (acceptor.clone(), plain.clone());
            tokio::spawn(async move {
                match acceptor.accept(connection).into_fallible().await {
                    Ok(mut secure) => {
                        let mut behind = TcpStream::connect(plain).await.unwrap();
                        // One of the two hangs up.
                        let _ = tokio::io::copy_bidirectional(&mut secure, &mut behind).await;
                    }
                    // A socket that is closed with something unread is reset, and the alert with it.
                    Err((_, mut refused)) => {
                        let _ = refused.read_to_end(&mut Vec::new()).await;
                    }
                }
            });
        }
    });
    format!("https://{address}")
}

fn builder(address: &str, world: &World) -> ArgoCdBuilder {
    let quick = RetryPolicy::default().between(Duration::from_millis(1), Duration::from_millis(10));
    ArgoCd::builder(address, Login::Token(world.lab.token().clone()))
        .unwrap()
        .retry(quick)
}

async fn refused(client: &ArgoCd) -> Error {
    let error = client.version().await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never, "{error}");
    // The stream does not try for ever either.
    let mut stream = client.watch(WatchFilter::default());
    let first = tokio::time::timeout(SOON, stream.next()).await.unwrap().unwrap();
    assert_eq!(first.unwrap_err().detail(), error.detail());
    assert!(stream.next().await.is_none());
    error
}

/// One call, and the first event of the stream.
async fn works(client: &ArgoCd) {
    assert!(!client.version().await.unwrap().version.is_empty());
    let mut stream = client.watch(WatchFilter::default());
    let first = tokio::time::timeout(SOON, stream.next()).await.unwrap().unwrap();
    let WatchEvent::Changed(app) = first.unwrap() else {
        panic!("the application is gone");
    };
    assert_eq!(app.metadata.name, "web");
}

async fn with_application() -> World {
    let world = World::start().await;
    world.commit(&world.image("one"));
    world.client().create(&world.spec(false)).await.unwrap();
    world
}

#[tokio::test]
async fn a_server_is_trusted_by_the_authority_that_is_given() {
    let world = with_application().await;
    let (ours, other) = (authority("ours"), authority("other"));
    let signed = Pair::signed_by(&ours, server("127.0.0.1"));
    for tls in [&version::TLS12, &version::TLS13] {
        let address = in_front_of(world.lab.url(), &signed, None, tls).await;
        let unknown = builder(&address, &world);
        let wrong = builder(&address, &world).root_certificates(root(&other));
        for client in [unknown, wrong] {
            let error = refused(&client.build().unwrap()).await;
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            let text = error.to_string();
            assert!(
                text.contains("certificate is not trusted") && text.contains("root certificate"),
                "{text}"
            );
        }
        let both = root(&other) + &root(&ours);
        works(&builder(&address, &world).root_certificates(both).build().unwrap()).await;
    }
    let own = Pair::self_signed();
    let address = in_front_of(world.lab.url(), &own, None, &version::TLS13).await;
    works(
        &builder(&address, &world)
            .root_certificates(own.certificate_pem())
            .build()
            .unwrap(),
    )
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_and_nobody_looks_where_that_is_asked() {
    let world = with_application().await;
    let ours = authority("ours");
    let mut expired = server("127.0.0.1");
    expired.not_after = date_time_ymd(2001, 1, 1);
    let mut early = server("127.0.0.1");
    early.not_before = date_time_ymd(4000, 1, 1);
    for (params, why, advice) in [
        (server("cd.example.com"), "cd.example.com", "check the address"),
        (expired, "expired", "renewed"),
        (early, "not valid yet", "clock"),
    ] {
        let pair = Pair::signed_by(&ours, params);
        let address = in_front_of(world.lab.url(), &pair, None, &version::TLS13).await;
        let trusting = || builder(&address, &world).root_certificates(root(&ours));
        for client in [trusting(), trusting().insecure(false)] {
            let text = refused(&client.build().unwrap()).await.to_string();
            assert!(text.contains(why) && text.contains(advice), "{text}");
        }
        works(&trusting().insecure(true).build().unwrap()).await;
        works(&builder(&address, &world).insecure(true).build().unwrap()).await;
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_gets_it() {
    let world = with_application().await;
    let (ours, clients) = (authority("ours"), authority("clients"));
    let signed = Pair::signed_by(&ours, server("127.0.0.1"));
    let mine = Pair::signed_by(&clients, client());
    let strange = Pair::signed_by(&authority("strange"), client());
    for tls in [&version::TLS12, &version::TLS13] {
        let address = in_front_of(world.lab.url(), &signed, Some(&clients), tls).await;
        let trusting = || builder(&address, &world).root_certificates(root(&ours));
        let error = refused(&trusting().build().unwrap()).await;
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(
            error.to_string().contains("asks for a client certificate"),
            "{error}"
        );
        let with = |pem: String| trusting().client_certificate(Secret::new(pem)).build().unwrap();
        let error = refused(&with(strange.pem())).await;
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(
            error
                .to_string()
                .contains("does not accept the client certificate"),
            "{error}"
        );
        works(&with(mine.pem())).await;
        works(&with(mine.key_pem() + &mine.certificate_pem())).await;
    }
}

/// Whether a text shows a key or a part of it, as text or as bytes.
fn shows(text: &str, key: &str) -> bool {
    key.as_bytes().windows(16).any(|part| {
        let bytes = format!("{part:?}");
        text.contains(std::str::from_utf8(part).unwrap()) || text.contains(bytes.trim_matches(['[', ']']))
    })
}

#[test]
fn certificates_that_cannot_be_used_are_refused_before_anything_is_sent() {
    let pair = Pair::self_signed();
    let other = Pair::self_signed();
    let token = || Login::Token(Secret::new("canary.canary.canary"));
    let builder = || ArgoCd::builder("https://cd.example.com", token()).unwrap();
    let key = BASE64_STANDARD.encode(pair.key.serialized_der());
    let cut = pem("PRIVATE KEY", &pair.key.serialized_der()[..40]);
    for (pem, why) in [
        (pair.certificate_pem(), "with a certificate and its key"),
        (pair.key_pem(), "with a certificate and its key"),
        (String::new(), "with a certificate and its key"),
        (format!("garbage {key}"), "with a certificate and its key"),
        (
            format!("-----BEGIN PRIVATE KEY-----\n{key}!\n-----END PRIVATE KEY-----"),
            "with a certificate and its key",
        ),
        (other.certificate_pem() + &pair.key_pem(), "another certificate"),
        (pair.certificate_pem() + &cut, "cannot be used"),
    ] {
        let builder = builder().client_certificate(Secret::new(pem));
        let shown = format!("{builder:?}");
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.detail().contains(why), "{error}");
        let shown = format!("{shown} {error} {error:?}");
        assert!(!shown.contains("canary") && !shows(&shown, &key), "{shown}");
    }
    for garbage in ["", "garbage", &pair.key_pem(), &pem("CERTIFICATE", b"garbage")] {
        let error = builder().root_certificates(garbage).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.detail().contains("certificate"), "{error}");
        assert!(!shows(&format!("{error:?}"), &key), "{error:?}");
    }
}

#[test]
fn another_machine_is_not_reached_without_tls_unless_that_is_asked() {
    let builder = |address: &str| ArgoCd::builder(address, Login::Anonymous).unwrap();
    for address in ["http://cd.example.com", "http://192.0.2.1:8080/root"] {
        for builder in [builder(address), builder(address).insecure(true)] {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(
                error.detail().contains("without TLS") && error.to_string().contains("https://"),
                "{error}"
            );
        }
        builder(address).allow_plain_http(true).build().unwrap();
    }
    for address in ["http://localhost:8080", "http://127.0.0.1:1", "http://[::1]:1"] {
        builder(address).build().unwrap();
    }
}

#[test]
fn nothing_secret_is_shown() {
    let pair = Pair::self_signed();
    let key = BASE64_STANDARD.encode(pair.key.serialized_der());
    let logins = [
        Login::Token(Secret::new("canary.canary.canary")),
        Login::Password {
            username: "admin".into(),
            password: Secret::new("canary"),
        },
        Login::Anonymous,
    ];
    for login in logins {
        let builder = ArgoCd::builder("https://cd.example.com", login.clone())
            .unwrap()
            .client_certificate(Secret::new(pair.pem()))
            // Somebody gives all of it.
            .root_certificates(pair.pem());
        let shown = format!("{builder:?} {builder:#?}");
        let shown = format!("{shown} {:?}", builder.build().unwrap());
        assert!(!shown.contains("canary") && !shows(&shown, &key), "{shown}");
        let odd = ArgoCd::builder("https://me:canary@cd.example.com?token=canary", login).unwrap();
        let shown = format!("{odd:?}");
        let shown = format!("{shown} {:?}", odd.build().unwrap_err());
        assert!(
            shown.contains("cd.example.com") && !shown.contains("canary"),
            "{shown}"
        );
    }
}
