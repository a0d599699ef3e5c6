//! Reading the parameters of an address: what is wrong with them is told by their names, in words that need no knowledge of this program.

use crate::code::Code;
use nowwhat::Problem;
use percent_encoding::percent_decode;
use serde::de::DeserializeOwned;

/// The parameters of an address, of which none has to be there; `known` names those there are.
///
/// # Errors
/// 400 `invalid_parameter`, which names the one at fault.
pub(crate) fn parameters<T: DeserializeOwned>(query: Option<&str>, known: &str) -> Result<T, Problem> {
    read(query.unwrap_or_default()).map_err(|flaw| Code::InvalidParameter.problem(format!("{flaw}; known: {known}")))
}

/// How serde tells that one is not there which has to be.
const MISSING: &str = "missing field ";

fn read<T: DeserializeOwned>(query: &str) -> Result<T, String> {
    // It would be read with a replacement character, which is another value.
    if let Some(pair) = query.split('&').find(|pair| percent_decode(pair.as_bytes()).decode_utf8().is_err()) {
        let name = pair.split('=').next().unwrap_or_default().chars().take(64).collect::<String>();
        return Err(format!("{name}: the bytes after its % are no UTF-8"));
    }
    serde_urlencoded::from_str(query).map_err(|error| {
        if let Some(name) = error.to_string().strip_prefix(MISSING) {
            return format!("{} is missing", name.trim_matches('`'));
        }
        let at_fault = query.split('&').find_map(|pair| flaw::<T>(pair));
        at_fault.unwrap_or_else(|| "one of the parameters is there twice".to_owned())
    })
}

/// What is wrong with one of them alone.
fn flaw<T: DeserializeOwned>(pair: &str) -> Option<String> {
    let error = serde_urlencoded::from_str::<T>(pair).err()?.to_string();
    if error.starts_with(MISSING) {
        // Of the others.
        return None;
    }
    let (name, value) = serde_urlencoded::from_str::<Vec<(String, String)>>(pair).ok()?.pop()?;
    let short = |text: &str| text.chars().take(64).collect::<String>();
    Some(if error.starts_with("unknown field") {
        format!("there is no parameter {:?}", short(&name))
    } else {
        format!("{}: {:?} is nothing that it can be", short(&name), short(&value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        limit: Option<u64>,
        after: Option<String>,
    }

    #[test]
    fn the_parameter_at_fault_is_named() {
        let page = read::<Page>("after=a%26b&limit=3").expect("fits");
        assert_eq!((page.limit, page.after.as_deref()), (Some(3), Some("a&b")));
        assert!(parameters::<Page>(None, "").expect("fits").limit.is_none());
        for (query, says) in [
            ("after=x&limit=many", "limit: \"many\" is nothing that it can be"),
            ("limit=", "limit: \"\" is nothing that it can be"),
            ("limit=-1", "limit: \"-1\" is nothing that it can be"),
            ("after=x&lim%69ts=3", "there is no parameter \"limits\""),
            ("limit=1&after=a%ff%20", "after: the bytes after its % are no UTF-8"),
            ("limit=1&limit=1", "one of the parameters is there twice"),
        ] {
            assert_eq!(read::<Page>(query).expect_err(query), says);
        }
    }
}
