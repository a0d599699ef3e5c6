//! Labels whose values are bounded by their types: no client can make a new time series.
//!
//! A [`Family`] takes only what [`labels!`](crate::labels!) declares, and that only fields of a type that is a [`Label`]: enums of
//! [`label!`](crate::label!), `bool`, [`Method`], [`Route`], [`StatusCode`]. A text is none:
//!
//! ```compile_fail,E0277
//! nowwhat::labels! {
//!     /// One series for every customer.
//!     pub struct Labels { customer: String }
//! }
//! ```
//!
//! ```compile_fail,E0277
//! nowwhat::labels! {
//!     /// Not even a text of the program.
//!     pub struct Labels { customer: &'static str }
//! }
//! ```
//!
//! ```compile_fail,E0277
//! use nowwhat::metrics::{Counter, Family};
//! let sold: Family<Vec<(String, String)>, Counter> = Family::default();
//! ```
//!
//! A route is only what the router matched; nobody else can make one:
//!
//! ```compile_fail,E0423
//! let route = nowwhat::metrics::Route("/made/up".into());
//! ```

use axum::extract::MatchedPath;
use http::StatusCode;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family as AnyFamily;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// What [`label!`](crate::label!) and [`labels!`](crate::labels!) implement and nobody else should.
#[doc(hidden)]
pub mod declared {
    pub use super::encode_label;
    pub use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

    /// A type with few values, known before the program runs.
    pub trait Bounded {}
    /// A struct of such types.
    pub trait Set {}
}

/// A type whose values are few and known before the program runs. Declared by [`label!`](crate::label!).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no label: its values are not bounded",
    note = "declare an enum with `nowwhat::label!`, or use `bool`, `Method`, `Route` or `StatusCode` of `nowwhat::metrics`"
)]
pub trait Label: declared::Bounded + Clone + Eq + Hash {
    /// As the metric shows it.
    fn value(&self) -> &str;
}

/// A struct of labels. Declared by [`labels!`](crate::labels!).
#[diagnostic::on_unimplemented(message = "`{Self}` is no set of labels", note = "declare it with `nowwhat::labels!`")]
pub trait LabelSet: declared::Set + EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static {}

/// Writes one label; for the code of [`labels!`](crate::labels!).
#[doc(hidden)]
pub fn encode_label(encoder: &mut LabelSetEncoder<'_>, name: &str, label: &impl Label) -> fmt::Result {
    // A field called `r#type` is the label `type`.
    (name.strip_prefix("r#").unwrap_or(name), label.value()).encode(encoder.encode_label())
}

/// Declares a label: an enum with the text of each value. `ALL` has its values, to begin each at zero.
///
/// ```
/// nowwhat::label! {
///     /// How a baking ended.
///     pub enum Outcome {
///         /// To the baker's liking.
///         Baked = "baked",
///         /// Too hot.
///         Burnt = "burnt",
///     }
/// }
/// use nowwhat::metrics::Label;
/// assert_eq!(Outcome::ALL.map(|outcome| outcome.value().to_owned()), ["baked", "burnt"]);
/// ```
#[macro_export]
macro_rules! label {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident {
            $($(#[doc = $value_doc:literal])* $value:ident = $text:literal),+ $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[doc = $value_doc])* $value,)+
        }

        impl $name {
            /// Every value, in the order of declaration.
            #[allow(dead_code)]
            $vis const ALL: [Self; [$($text),+].len()] = [$(Self::$value),+];
        }

        impl $crate::metrics::declared::Bounded for $name {}

        impl $crate::metrics::Label for $name {
            fn value(&self) -> &str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }
    };
}

/// Declares a set of labels: a struct whose fields are [`Label`]s, for a [`Family`].
///
/// ```
/// use nowwhat::metrics::{Counter, Family, Method};
/// nowwhat::label! {
///     /// How it was paid.
///     pub enum Payment { Cash = "cash", Card = "card" }
/// }
/// nowwhat::labels! {
///     /// What sales are counted by.
///     pub struct Sale { method: Method, payment: Payment, regular: bool }
/// }
/// let sales: Family<Sale, Counter> = Family::default();
/// sales.get_or_create(&Sale { method: Method::Post, payment: Payment::Cash, regular: true }).inc();
/// ```
#[macro_export]
macro_rules! labels {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $($(#[doc = $field_doc:literal])* $field_vis:vis $field:ident: $kind:ty),+ $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        $vis struct $name {
            $($(#[doc = $field_doc])* $field_vis $field: $kind,)+
        }

        impl $crate::metrics::declared::Set for $name {}

        impl $crate::metrics::LabelSet for $name {}

        impl $crate::metrics::declared::EncodeLabelSet for $name {
            fn encode(&self, encoder: &mut $crate::metrics::declared::LabelSetEncoder<'_>) -> ::std::fmt::Result {
                $($crate::metrics::declared::encode_label(encoder, stringify!($field), &self.$field)?;)+
                Ok(())
            }
        }
    };
}

/// Metrics of one name, told apart by labels. Cheap to clone.
#[derive(Debug)]
pub struct Family<L: LabelSet, M> {
    inner: AnyFamily<L, M>,
}

impl<L: LabelSet, M> Family<L, M> {
    /// A family whose metrics are made by `constructor`, for histograms with their buckets.
    pub fn new_with_constructor(constructor: fn() -> M) -> Self {
        Self { inner: AnyFamily::new_with_constructor(constructor) }
    }

    /// The metric with these labels. To be let go at once: while it is held, no further labels can come.
    pub fn get_or_create(&self, labels: &L) -> impl Deref<Target = M> {
        self.inner.get_or_create(labels)
    }

    /// A metric to be kept, so that counting needs no look-up.
    pub fn get_or_create_owned(&self, labels: &L) -> M
    where
        M: Clone,
    {
        self.inner.get_or_create_owned(labels)
    }
}

impl<L: LabelSet, M: Default> Default for Family<L, M> {
    fn default() -> Self {
        Self { inner: AnyFamily::default() }
    }
}

impl<L: LabelSet, M> Clone for Family<L, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<L: LabelSet, M> EncodeMetric for Family<L, M>
where
    AnyFamily<L, M>: EncodeMetric,
{
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.inner.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.inner.metric_type()
    }

    fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
}

impl declared::Bounded for bool {}

impl Label for bool {
    fn value(&self) -> &str {
        if *self { "true" } else { "false" }
    }
}

/// At most 900 values, and the service chooses them.
impl declared::Bounded for StatusCode {}

impl Label for StatusCode {
    fn value(&self) -> &str {
        self.as_str()
    }
}

crate::label! {
    /// Methods of HTTP by name, all others as one.
    pub enum Method {
        /// GET.
        Get = "GET",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// DELETE.
        Delete = "DELETE",
        /// HEAD.
        Head = "HEAD",
        /// OPTIONS.
        Options = "OPTIONS",
        /// PATCH.
        Patch = "PATCH",
        /// CONNECT.
        Connect = "CONNECT",
        /// TRACE.
        Trace = "TRACE",
        /// What a client made up.
        Other = "other",
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        Self::ALL.into_iter().find(|known| known.value() == method.as_str()).unwrap_or(Self::Other)
    }
}

/// The template of the route that answers, such as `/loaves/{id}`. Cheap to clone.
#[derive(Clone)]
pub struct Route(Option<MatchedPath>);

impl Route {
    /// No route: `unmatched`.
    pub const UNMATCHED: Self = Self(None);

    /// The route of a request, from its extensions.
    pub fn of(extensions: &http::Extensions) -> Self {
        Self(extensions.get::<MatchedPath>().cloned())
    }
}

impl declared::Bounded for Route {}

impl Label for Route {
    fn value(&self) -> &str {
        self.0.as_ref().map_or("unmatched", MatchedPath::as_str)
    }
}

impl Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::registry::Registry;
    use tower::ServiceExt;

    crate::labels! {
        /// All kinds of labels.
        struct Labels {
            method: Method,
            route: Route,
            status: StatusCode,
            r#type: bool,
        }
    }

    fn text(family: &Family<Labels, Counter>) -> String {
        let mut registry = Registry::default();
        registry.register("asked", "Asked", family.clone());
        let mut text = String::new();
        encode(&mut text, &registry).expect("a text");
        text
    }

    #[tokio::test]
    async fn a_family_shows_the_template_of_the_matched_route_and_each_label_by_its_field() {
        let family: Family<Labels, Counter> = Family::default();
        let counted = family.clone();
        let handler = move |method: http::Method, request: axum::extract::Request| async move {
            let route = Route::of(request.extensions());
            let labels = Labels { method: (&method).into(), route, status: StatusCode::OK, r#type: true };
            counted.get_or_create(&labels).inc();
        };
        let router = axum::Router::new().route("/loaves/{id}", axum::routing::any(handler));
        for (method, path) in [("GET", "/loaves/1"), ("GET", "/loaves/2"), ("BAKE", "/loaves/3"), ("FRY", "/loaves/4")]
        {
            let request = http::Request::builder().method(method).uri(path).body(axum::body::Body::empty());
            router.clone().oneshot(request.expect("a request")).await.expect("an answer");
        }
        let text = text(&family);
        let line = |method| {
            format!("asked_total{{method=\"{method}\",route=\"/loaves/{{id}}\",status=\"200\",type=\"true\"}} 2\n")
        };
        assert!(text.contains(&line("GET")) && text.contains(&line("other")), "{text}");
        assert_eq!(text.lines().filter(|l| l.starts_with("asked_total")).count(), 2, "{text}");
    }

    #[test]
    fn a_request_without_a_route_is_unmatched() {
        let route = Route::of(&http::Extensions::new());
        assert_eq!((route.value(), &route), ("unmatched", &Route::UNMATCHED));
    }

    #[test]
    fn every_known_method_keeps_its_name() {
        for method in ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"] {
            assert_eq!(Method::from(&http::Method::from_bytes(method.as_bytes()).expect("a method")).value(), method);
        }
        assert_eq!(Method::from(&http::Method::from_bytes(b"get").expect("a method")), Method::Other);
        let other = http::Method::from_bytes(b"other").expect("a method");
        assert_eq!(Method::from(&other), Method::Other);
    }

    #[test]
    fn a_kept_metric_is_the_one_of_the_family() {
        let family: Family<Labels, Counter> = Family::new_with_constructor(Counter::default);
        let labels =
            Labels { method: Method::Get, route: Route::UNMATCHED, status: StatusCode::NOT_FOUND, r#type: false };
        family.get_or_create_owned(&labels).inc_by(3);
        assert_eq!(family.get_or_create(&labels).get(), 3);
    }
}
