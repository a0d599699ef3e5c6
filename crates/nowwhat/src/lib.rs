//! nowwhat
