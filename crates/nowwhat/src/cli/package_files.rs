//! What a package takes from the command line itself: man pages and completions of shells.

use clap::{Args, Command};
use clap_complete::Shell;
use std::io;
use std::path::PathBuf;

/// Write the man pages and the completions of shells into a folder, for whoever makes a package.
#[derive(Args, Clone, Debug)]
pub struct PackageFiles {
    /// The folder; it is made when it is missing.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

impl PackageFiles {
    /// Writes them for this command line: a page for each command that is shown, completions for bash, zsh and fish.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, command: Command) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command.clone(), &name, &self.folder)?;
        }
        clap_mangen::generate_to(command, &self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn each_command_that_is_shown_has_a_page_and_shells_complete_it() {
        let command = Command::new("bakery")
            .about("Bakes")
            .version("1.2.3")
            .subcommand(Command::new("bake").about("Bake a loaf").arg(Arg::new("crust").long("crust").help("How dark")))
            .subcommand(Command::new("secret").hide(true));
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("files");
        PackageFiles { folder: folder.clone() }.write(command).expect("written");

        let mut names: Vec<_> = std::fs::read_dir(&folder).expect("made").flatten().map(|f| f.file_name()).collect();
        names.sort();
        assert_eq!(names, ["_bakery", "bakery-bake.1", "bakery.1", "bakery.bash", "bakery.fish"]);
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file");
        assert!(read("bakery-bake.1").contains("How dark"));
        assert!(read("bakery.1").contains("1.2.3"));
        for name in ["_bakery", "bakery.bash", "bakery.fish"] {
            assert!(read(name).contains("crust"), "{name}");
        }
    }
}
