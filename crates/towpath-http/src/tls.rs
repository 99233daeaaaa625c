//! What a TLS handshake failed for, in words that say what to do.
//!
//! A certificate that is refused, on either side, is refused the next time too: such errors are not retried.

use crate::answer::Purpose;
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::error::Error as StdError;
use towpath_core::Retry;
use towpath_elements::{Error, ErrorKind};

/// The error where TLS or its certificates are why a request failed; `None` for every other failure.
pub(crate) fn refusal(failure: &(dyn StdError + 'static), purpose: &Purpose) -> Option<Error> {
    let (kind, because, advice) = match cause(failure)? {
        TlsError::InvalidCertificate(why) => {
            let (because, advice) = of_server(why);
            (
                ErrorKind::Unavailable,
                format!("the server's certificate is not trusted: {because}"),
                advice,
            )
        }
        TlsError::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => (
            ErrorKind::Unavailable,
            "the server does not answer with TLS".into(),
            "check the scheme and the port: it may speak plain HTTP",
        ),
        TlsError::AlertReceived(alert) => {
            let (because, advice) = of_client(*alert)?;
            (ErrorKind::Unauthenticated, because, advice)
        }
        _ => return None,
    };
    Some(
        purpose
            .error(kind)
            .because(because)
            .advise(advice)
            .retrying(Retry::Never),
    )
}

/// The TLS library's own error, somewhere below the HTTP library's.
pub(crate) fn cause<'a>(failure: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(failure);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // What an I/O error holds is not its source: its source is the source of what it holds.
        let held = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

fn of_server(why: &CertificateError) -> (String, &'static str) {
    use CertificateError as Why;
    match why {
        Why::UnknownIssuer => (
            "its authority is not known here".into(),
            "check the address; where it is right, give the certificate of the authority as a root certificate",
        ),
        Why::Expired | Why::ExpiredContext { .. } => (
            "it has expired".into(),
            "have the server's certificate renewed, or set this machine's clock right",
        ),
        Why::NotValidYet | Why::NotValidYetContext { .. } => (
            "it is not valid yet".into(),
            "set this machine's clock right, or wait until the certificate is valid",
        ),
        Why::NotValidForName => ("it is for another name".into(), OTHER_NAME),
        Why::NotValidForNameContext { presented, .. } => (
            match presented.as_slice() {
                [] => "it is for no name".into(),
                names => format!("it is for {}", names[..names.len().min(MOST_NAMES)].join(", ")),
            },
            OTHER_NAME,
        ),
        other => (
            other.to_string(),
            "check the address, and have the server's certificate mended",
        ),
    }
}

/// How many of a certificate's names are told: some are for hundreds.
const MOST_NAMES: usize = 5;

const OTHER_NAME: &str = "check the address: it must have a name that the certificate is for";

/// What an alert says about the client's certificate; `None` where it says nothing about it.
fn of_client(alert: AlertDescription) -> Option<(String, &'static str)> {
    use AlertDescription as Alert;
    Some(match alert {
        Alert::CertificateRequired => (
            "the server asks for a client certificate".into(),
            "give a client certificate with its key",
        ),
        // TLS 1.2 has no alert of its own for one that is missing.
        Alert::BadCertificate => (
            "the server does not accept the client certificate, or asks for one: BadCertificate".into(),
            ACCEPTED,
        ),
        Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::DecryptError => (
            format!("the server does not accept the client certificate: {alert:?}"),
            ACCEPTED,
        ),
        _ => return None,
    })
}

const ACCEPTED: &str = "give a client certificate, with its key, that an authority which the server knows has signed, and that has not \
     expired";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: TlsError) -> Option<Error> {
        let purpose = Purpose {
            service: "s",
            attempted: "read".into(),
            subject: "it".into(),
        };
        // As the HTTP library wraps it.
        refusal(&std::io::Error::other(std::io::Error::other(error)), &purpose)
    }

    #[test]
    fn each_refusal_says_what_to_do_and_is_not_retried() {
        use CertificateError as Why;
        for (error, kind, because, advice) in [
            (
                TlsError::InvalidCertificate(Why::UnknownIssuer),
                ErrorKind::Unavailable,
                "not trusted: its authority",
                "root certificate",
            ),
            (
                TlsError::InvalidCertificate(Why::Expired),
                ErrorKind::Unavailable,
                "expired",
                "renewed",
            ),
            (
                TlsError::InvalidCertificate(Why::NotValidYet),
                ErrorKind::Unavailable,
                "not valid yet",
                "clock",
            ),
            (
                TlsError::InvalidCertificate(Why::NotValidForName),
                ErrorKind::Unavailable,
                "another name",
                "check the address",
            ),
            (
                TlsError::InvalidCertificate(Why::Revoked),
                ErrorKind::Unavailable,
                "Revoked",
                "mended",
            ),
            (
                TlsError::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                ErrorKind::Unavailable,
                "does not answer with TLS",
                "plain HTTP",
            ),
            (
                TlsError::AlertReceived(AlertDescription::CertificateRequired),
                ErrorKind::Unauthenticated,
                "asks for a client certificate",
                "with its key",
            ),
            (
                TlsError::AlertReceived(AlertDescription::UnknownCA),
                ErrorKind::Unauthenticated,
                "UnknownCA",
                "signed",
            ),
        ] {
            let told = told(error).unwrap();
            assert_eq!((told.kind(), told.retry()), (kind, Retry::Never), "{told}");
            assert!(told.detail().contains(because), "{told}");
            assert!(told.to_string().contains(advice), "{told}");
        }
    }

    #[test]
    fn what_is_not_about_certificates_is_left_alone() {
        for error in [
            TlsError::AlertReceived(AlertDescription::InternalError),
            TlsError::AlertReceived(AlertDescription::CloseNotify),
            TlsError::DecryptError,
        ] {
            assert!(told(error).is_none());
        }
        let purpose = Purpose {
            service: "s",
            attempted: "read".into(),
            subject: "it".into(),
        };
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(refusal(&reset, &purpose).is_none());
    }
}
