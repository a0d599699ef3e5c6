//! Settings: declared once with type, default, range and meaning; read from files, the environment and flags.
//!
//! [`settings!`](crate::settings!) declares them. [`load()`] reads all sources in order (default, file, file of the environment,
//! credentials, environment, flags; the last one wins) and reports every problem at once, with key, value, range and origin.
//! Names: `<section>.<key>` in TOML, `<PREFIX>_<SECTION>__<KEY>` in the environment. A secret can also be given as `<key>_file`, the name of
//! a file that holds it, or as a systemd credential; such a file is taken as it is. In all other texts `${section.key}` stands for the value of
//! another setting, and `$${` for a literal `${`. Within one source a setting is given once. No file may be larger than 1 MiB.

mod file;
mod hint;
mod interpolation;
mod load;
mod loaded;
mod render;
mod spec;
mod value;

pub use load::{Sources, load};
pub(crate) use load::{Turn, find, leave_out, prefix};
pub use loaded::{Changes, Given, Ignored, Loaded, Origin, Problems};
pub use render::default_file;
pub use spec::{Range, Spec, with_default};
pub use value::{ByteSize, FlawedElement, Seconds, Secret, Url, Value};

/// Declares settings: a struct of sections, each a struct of typed keys. After the default may come `range "min".."max"`, and `reload`
/// for a setting whose new value the running service takes over.
///
/// Several structs can be loaded together (`[Foundation::specs(), Settings::specs()].concat()`), also with keys in the same section.
///
/// ```
/// nowwhat::settings! {
///     /// The settings of a bakery.
///     pub struct Settings {
///         /// The oven.
///         oven: Oven {
///             /// How hot.
///             celsius: u32 = "220", range "50".."300", reload;
///         }
///     }
/// }
/// let none = nowwhat::Environment::default();
/// let loaded = nowwhat::config::load(&Settings::specs(), &nowwhat::config::Sources::of("bakery"), &none).expect("defaults are valid");
/// assert_eq!(Settings::from_loaded(&loaded).oven.celsius, 220);
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $section_doc:literal])*
                $section:ident: $section_type:ident {
                    $(
                        $(#[doc = $key_doc:literal])*
                        $key:ident: $kind:ty = $default:literal $(, $limit:ident $($min:literal .. $max:literal)?)*;
                    )*
                }
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $($(#[doc = $section_doc])* $vis $section: $section_type,)*
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug)]
            $vis struct $section_type {
                $($(#[doc = $key_doc])* $vis $key: $kind,)*
            }
        )*

        impl $name {
            /// Every setting, in the order of declaration.
            $vis fn specs() -> Vec<$crate::config::Spec> {
                let mut specs = Vec::new();
                $({
                    let section_doc: &'static str = concat!($($section_doc, "\n",)*);
                    $(
                        let names = (stringify!($section), stringify!($key));
                        let docs = (section_doc, concat!($($key_doc, "\n",)*));
                        let spec = $crate::config::Spec::of::<$kind>(names, docs, $default);
                        specs.push(spec$(.$limit($($min, $max)?))*);
                    )*
                })*
                specs
            }

            /// The typed settings of what was loaded for [`Self::specs`].
            $vis fn from_loaded(loaded: &$crate::config::Loaded) -> Self {
                Self {
                    $($section: $section_type {
                        $($key: loaded.value(stringify!($section), stringify!($key)),)*
                    },)*
                }
            }
        }
    };
}
