//! What a status alone tells: the stable code and the title of its problem.

use http::StatusCode;

const TABLE: [(StatusCode, &str, &str); 22] = [
    (StatusCode::BAD_REQUEST, "bad_request", "The request cannot be understood"),
    (StatusCode::UNAUTHORIZED, "unauthorized", "Say who you are first"),
    (StatusCode::FORBIDDEN, "forbidden", "This is not allowed to you"),
    (StatusCode::NOT_FOUND, "not_found", "There is nothing here"),
    (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This cannot be done here"),
    (StatusCode::NOT_ACCEPTABLE, "not_acceptable", "No accepted form of the answer exists"),
    (StatusCode::REQUEST_TIMEOUT, "request_timeout", "The request did not arrive in time"),
    (StatusCode::CONFLICT, "conflict", "The request contradicts what is here"),
    (StatusCode::GONE, "gone", "This is here no more"),
    (StatusCode::LENGTH_REQUIRED, "length_required", "The request must tell its length"),
    (StatusCode::PRECONDITION_FAILED, "precondition_failed", "What the request relies on does not hold"),
    (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The request's body is too large"),
    (StatusCode::URI_TOO_LONG, "uri_too_long", "The request's address is too long"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "This type of body is not read here"),
    (StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", "The request's body does not fit"),
    (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests came"),
    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "The request's headers are too large"),
    (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something failed here"),
    (StatusCode::NOT_IMPLEMENTED, "not_implemented", "This is not done here yet"),
    (StatusCode::BAD_GATEWAY, "bad_gateway", "What this service relies on failed"),
    (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service cannot do this now"),
    (StatusCode::GATEWAY_TIMEOUT, "gateway_timeout", "What this service relies on did not answer in time"),
];

/// Code and title for any status of an error.
pub(super) fn told(status: StatusCode) -> (&'static str, &'static str) {
    let line = |status| TABLE.iter().find(|(s, ..)| *s == status).map(|(_, code, title)| (*code, *title));
    let class = if status.is_server_error() { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
    line(status).or_else(|| line(class)).expect("both classes have a line")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_status_has_a_code_of_its_own_and_one_without_a_line_has_its_classs() {
        let codes: BTreeSet<&str> = TABLE.iter().map(|(_, code, _)| *code).collect();
        assert_eq!(codes.len(), TABLE.len());
        let code = |status| told(StatusCode::from_u16(status).expect("a status")).0;
        assert_eq!(
            [code(404), code(418), code(503), code(507)],
            ["not_found", "bad_request", "unavailable", "internal"]
        );
    }
}
